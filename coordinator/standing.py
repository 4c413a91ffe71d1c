"""What an account may do in a repository now, as GitHub says it. Rules 1, 6 and 17 judge by this one answer.

Must not decide anything: `adw_modules.security.admission.Policy` does. Where GitHub cannot say at the
moment it raises, so that nobody concludes anything.
"""

from __future__ import annotations

from adw_modules.errors import GitHubRefused
from adw_modules.security.admission import Actor, Standing
from coordinator.services import Services


async def standing_of(services: Services, repo: str, actor: Actor) -> Standing:
    """Only the id counts: a login that another account has by now lends nothing.

    Raises GitHubUnavailable where nothing is known, and GitHubRefused for other answers than 200, 403, 404.
    """
    if not services.settings.admission.policy.needs_permission(actor):
        return Standing(actor=actor)
    try:
        found = await services.github.permission(repo, actor.login)
    except GitHubRefused as error:
        if error.status != 403:
            raise
        return Standing(actor=actor, permission="unknown", role="unknown", problem="GitHub answers 403")
    if found.permission != "none" and found.user_id != actor.user_id:
        problem = "its login belongs to another account"
        return Standing(actor=actor, permission="unknown", role="unknown", problem=problem)
    return Standing(actor=actor, permission=found.permission, role=found.role_name)
