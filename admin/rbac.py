"""Who may do what on the admin plane: one literal table of routes and roles, and how far each role sees.

Whether a route is for a role at all is decided here, by its method and path; a route that is not in the table is for platform
admins alone. Which objects it then finds is decided by the role's reach: what belongs to others is not there for it (404).
"""

from collections.abc import Mapping

import msgspec

from admin.roles import ROLES, USER_ROLES, Role, UserRole
from gateway.budget_store import Level
from gateway.errors import AccessDenied, BadRequest
from gateway.reach import Reach

_PLATFORM = frozenset[Role]({"platform_admin"})
_SEEN = frozenset[Role]({"platform_admin", "platform_viewer"})
_ORG = frozenset[Role]({"platform_admin", "org_admin"})
_TEAM = frozenset[Role]({"platform_admin", "org_admin", "team_admin"})
_ALL = frozenset[Role](ROLES)

PERMISSIONS: Mapping[tuple[str, str], frozenset[Role]] = {
    ("GET", "/me"): _ALL,
    ("GET", "/orgs"): _ALL,
    ("POST", "/orgs"): _PLATFORM,
    ("GET", "/orgs/{id}"): _ALL,
    ("PATCH", "/orgs/{id}"): _PLATFORM,
    ("DELETE", "/orgs/{id}"): _PLATFORM,
    ("GET", "/teams"): _ALL,
    ("POST", "/teams"): _ORG,
    ("GET", "/teams/{id}"): _ALL,
    ("PATCH", "/teams/{id}"): _ORG,
    ("DELETE", "/teams/{id}"): _ORG,
    ("GET", "/users"): _ALL,
    ("POST", "/users"): _ORG,
    ("GET", "/users/{id}"): _ALL,
    ("PATCH", "/users/{id}"): _ORG,
    ("DELETE", "/users/{id}"): _ORG,
    ("GET", "/keys"): _ALL,
    ("POST", "/keys"): _TEAM,
    ("GET", "/keys/{id}"): _ALL,
    ("PATCH", "/keys/{id}"): _TEAM,
    ("DELETE", "/keys/{id}"): _TEAM,
    ("POST", "/keys/{id}/revoke"): _TEAM,
    ("POST", "/keys/{id}/rotate"): _TEAM,
    ("GET", "/budgets"): _ALL,
    ("POST", "/budgets"): _TEAM,
    ("GET", "/budgets/{id}"): _ALL,
    ("PATCH", "/budgets/{id}"): _TEAM,
    ("DELETE", "/budgets/{id}"): _TEAM,
    ("POST", "/budgets/{id}/reset"): _TEAM,
    ("POST", "/budgets/{id}/raise"): _TEAM,
    ("GET", "/limits"): _ALL,
    ("POST", "/limits"): _TEAM,
    ("GET", "/limits/{id}"): _ALL,
    ("PATCH", "/limits/{id}"): _TEAM,
    ("DELETE", "/limits/{id}"): _TEAM,
    ("GET", "/tokens"): _ORG,
    ("POST", "/tokens"): _ORG,
    ("GET", "/tokens/{id}"): _ORG,
    ("DELETE", "/tokens/{id}"): _ORG,
    ("GET", "/audit"): _SEEN | _ORG,
    ("GET", "/models"): _SEEN,
    ("GET", "/models/{name}"): _SEEN,
    ("GET", "/deployments"): _SEEN,
    ("GET", "/deployments/{id}"): _SEEN,
    ("GET", "/engines"): _SEEN,
    ("GET", "/engines/{name}"): _SEEN,
    ("GET", "/mcp/servers"): _SEEN,
    ("GET", "/mcp/servers/{name}"): _SEEN,
    ("GET", "/guards"): _SEEN,
    ("GET", "/guards/{name}"): _SEEN,
    ("GET", "/routes"): _SEEN,
    ("GET", "/routes/{name}"): _SEEN,
    ("GET", "/prompts"): _SEEN,
    ("GET", "/prompts/{name}"): _SEEN,
    ("GET", "/retrievers"): _SEEN,
    ("GET", "/retrievers/{name}"): _SEEN,
    ("GET", "/rollouts"): _SEEN,
    ("GET", "/rollouts/{id}"): _SEEN,
    ("GET", "/monitors"): _SEEN,
    ("GET", "/monitors/{id}"): _SEEN,
    ("GET", "/monitors/{id}/windows"): _SEEN,
    ("GET", "/feedback"): _ALL,
    ("GET", "/collections"): _ALL,
    ("GET", "/collections/{id}"): _ALL,
    ("PATCH", "/collections/{id}"): _ORG,
    ("GET", "/collections/{id}/advice"): _TEAM,
    ("DELETE", "/collections/{id}"): _TEAM,
    ("GET", "/documents"): _TEAM,  # names of files, which labels may hide from keys
    ("POST", "/collections/{id}/documents/retry"): _TEAM,
    ("GET", "/collections/{id}/snapshots"): _ALL,
    ("POST", "/collections/{id}/snapshots"): _TEAM,
    ("DELETE", "/collections/{id}/snapshots/{snapshot}"): _TEAM,
    ("POST", "/collections/{id}/snapshots/{snapshot}/restore"): _TEAM,
    ("GET", "/collections/{id}/reembeddings"): _ALL,
    ("POST", "/collections/{id}/reembeddings"): _TEAM,
    ("GET", "/collections/{id}/reembeddings/{reembedding}"): _ALL,
    ("POST", "/collections/{id}/reembeddings/{reembedding}/canary"): _TEAM,
    ("POST", "/collections/{id}/reembeddings/{reembedding}/promote"): _TEAM,
    ("POST", "/collections/{id}/reembeddings/{reembedding}/rollback"): _TEAM,
    ("POST", "/collections/{id}/reembeddings/{reembedding}/finish"): _TEAM,
    ("POST", "/collections/{id}/reembeddings/{reembedding}/cancel"): _TEAM,
    ("POST", "/collections/{id}/reembeddings/{reembedding}/resume"): _TEAM,
    ("GET", "/requests"): _ALL,
    ("GET", "/requests/{id}"): _TEAM,  # what was said, where it is recorded
    ("GET", "/spend"): _ALL,
    ("GET", "/registry"): _SEEN | _TEAM,
    ("GET", "/registry/{name}"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/history"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/versions"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/versions/{version}"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/versions/{version}/profile"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/versions/{version}/artifact"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/versions/{version}/skew"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/versions/{version}/approvals"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/aliases"): _SEEN | _TEAM,
    ("GET", "/registry/{name}/aliases/{alias}"): _SEEN | _TEAM,
    ("POST", "/registry/{name}/versions/{version}/approvals"): _TEAM,  # whose approval counts, the alias's gate says
    ("DELETE", "/registry/{name}/versions/{version}/approvals/{alias}"): _TEAM,
    ("GET", "/features"): _SEEN | _TEAM,
    ("GET", "/features/{name}"): _SEEN | _TEAM,
    ("GET", "/scoring"): _SEEN,
    ("GET", "/scoring/{id}"): _SEEN,
    ("GET", "/config"): _SEEN,
}

# Which roles a role may give to others: never one that can more than itself.
GRANTS: Mapping[Role, frozenset[UserRole]] = {
    "platform_admin": frozenset(USER_ROLES),
    "org_admin": frozenset({"org_admin", "team_admin", "viewer", "member"}),
    "platform_viewer": frozenset(),
    "team_admin": frozenset(),
    "viewer": frozenset(),
}


class Principal(msgspec.Struct, frozen=True):
    """Who asks: `admin key`, `token tok_…` or `user ada@example.com`, as what, and for whom."""

    actor: str
    role: Role
    org_id: str | None = None
    team_id: str | None = None

    @property
    def reach(self) -> Reach:
        """What is there for this one."""
        return Reach(self.org_id, self.team_id)

    @property
    def level(self) -> Level:
        """As whom this one sets budgets and limits."""
        match self.role:
            case "platform_admin" | "platform_viewer":
                return "platform"
            case "org_admin":
                return "org"
            case _:
                return "team"

    def require(self, method: str, route: str) -> None:
        """`route` is the path below the admin plane's prefix, with its parameters by name. Raises AccessDenied."""
        permitted = PERMISSIONS.get((method, route.replace(":path}", "}")), _PLATFORM)
        if self.role not in permitted:
            raise AccessDenied(f"A {self.role.replace('_', ' ')} may not do this.", code="permission_denied")

    def require_reach(self, org_id: str | None, team_id: str | None = None) -> None:
        """For what is about to be made or given away. Raises AccessDenied."""
        if not self.reach.covers(org_id, team_id):
            raise AccessDenied("This is not of your organisation or team.", code="permission_denied")

    def require_below(self, reach: Reach, *, own: bool) -> None:
        """For budgets and limits: nobody sets those on the very organisation or team that they administer."""
        self.require_reach(reach.org_id, reach.team_id)
        if own and self.role != "platform_admin":
            raise AccessDenied("Only an admin above may set this on what you administer.", code="permission_denied")

    def require_grant(self, role: str) -> None:
        """Raises AccessDenied for a role that can more than this one."""
        if role not in GRANTS[self.role]:
            raise AccessDenied(f"A {self.role.replace('_', ' ')} may not make a {role}.", code="permission_denied")


def principal(actor: str, role: Role, org_id: str | None, team_id: str | None) -> Principal:
    """Only what belongs to a role is kept of an organisation and a team. Raises BadRequest where one is missing."""
    match role:
        case "platform_admin" | "platform_viewer":
            return Principal(actor, role)
        case "org_admin":
            team_id = None
        case "team_admin":
            if team_id is None:
                raise BadRequest("A team_admin needs a team_id.", param="team_id")
        case "viewer":
            pass
    if org_id is None:
        raise BadRequest(f"A {role} needs an org_id.", param="org_id")
    return Principal(actor, role, org_id, team_id)
