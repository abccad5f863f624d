"""The names of roles on the admin plane; what each may do is in `admin.rbac`."""

from typing import Literal, get_args

Role = Literal["platform_admin", "platform_viewer", "org_admin", "team_admin", "viewer"]
UserRole = Literal["platform_admin", "platform_viewer", "org_admin", "team_admin", "viewer", "member"]

ROLES: tuple[Role, ...] = get_args(Role)
USER_ROLES: tuple[UserRole, ...] = get_args(UserRole)
