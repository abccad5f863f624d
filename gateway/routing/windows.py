"""Which deployments take a prompt of some length: by what is known of their models' context windows."""

from collections.abc import Callable, Sequence

from gateway.bodies import CompletionRequest, EmbeddingRequest, Request
from gateway.catalog import Deployment
from gateway.prompt_bound import surely_too_long


def takes(deployment: Deployment, body: bytes, request: Request) -> bool:
    """Whether the prompt may fit there. Where the window is not known, it may, and a list of texts has it for each of them."""
    return not surely_too_long(body, deployment.max_input_tokens) or _listed(request)


def roomy(deployments: Sequence[Deployment], body: bytes, request: Request) -> Sequence[Deployment]:
    """Those that it may fit; all of them where that is none, and the provider is to say so."""
    return [one for one in deployments if takes(one, body, request)] or deployments


def wider_than(narrow: Deployment) -> Callable[[Sequence[Deployment]], Sequence[Deployment]]:
    """Leaves those that are known to take a longer prompt than one that refused it: none, where its own window is not known."""
    least = narrow.max_input_tokens

    def wider(deployments: Sequence[Deployment]) -> Sequence[Deployment]:
        return [one for one in deployments if least is not None and (one.max_input_tokens or 0) > least]

    return wider


def _listed(request: Request) -> bool:
    if isinstance(request, EmbeddingRequest):
        return isinstance(request.input, list)
    return isinstance(request, CompletionRequest) and isinstance(request.prompt, list)
