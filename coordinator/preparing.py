"""From a claimed run to all that its worker is started with: workspace, argv, environment, prompt.

Starts nothing and tells the store nothing. What is missing is an exception that says so: WorkspaceError,
PromptError or SpawnError, each its own failure class.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from adw_modules.agents import DIALECTS, Dialect
from adw_modules.config import ProviderSettings
from adw_modules.errors import SpawnError, WorkspaceError
from adw_modules.money.budget import Unit
from adw_modules.providers import Provider
from adw_modules.routing.workflows import TEMPLATE
from adw_modules.tasks.model import Run, Task
from coordinator import enclosing
from coordinator.budgeting import most_of
from coordinator.environment import CONFIG_DIR, has_own_config, worker_environment
from coordinator.launcher import LaunchSpec
from coordinator.prompts import PromptValues, render
from coordinator.services import Services
from coordinator.systemd.units import Limits
from coordinator.workspaces import Workspace

EXTRA_PROCESSES = 500  # what is around the agent (bubblewrap, its proxy's threads) and what Linux keeps free


def prepare_workspace(services: Services, task: Task, *, not_older_than: float) -> Workspace:
    """The task's worktree, made or taken up again. Blocks.

    `not_older_than` (monotonic): the git fetch that a new one stands on must have begun after it.
    """
    repository = services.repository(task.repo)
    if repository is None:
        raise WorkspaceError(f"{task.repo} is no longer configured; nothing was started")
    workspace = services.workspaces.prepare(
        services.mirror(repository),
        task.name,
        task.branch,
        default_branch=None,
        auth=services.git_auth(repository),
        now=services.now(),
        not_older_than=not_older_than,
    )
    if enclosing.wanted(services).box is not None:
        return replace(workspace, git=services.workspaces.lend_git(workspace))
    services.workspaces.share_git(workspace)
    return workspace


def find_workspace(services: Services, task: Task) -> Workspace | None:
    """The task's worktree as an earlier daemon left it; None when there is none (any more). Blocks."""
    repository = services.repository(task.repo)
    if repository is None:
        return None
    return services.workspaces.find(services.mirror(repository), task.name, task.branch)


def run_folders(services: Services, task: Task, workspace: Workspace | None) -> tuple[Path, ...]:
    """Where the task's run leaves files; nothing where there is no sandbox to limit that. Blocks."""
    found = workspace or find_workspace(services, task)
    if found is None or enclosing.wanted(services).box is None:
        return ()
    return services.workspaces.folders_of(found)


def launch_spec(services: Services, task: Task, run: Run, workspace: Workspace) -> LaunchSpec:
    """Everything the shim needs; the limits count from now."""
    provider = services.settings.providers.get(run.provider)
    if provider is None:
        raise SpawnError(f"provider {run.provider} is no longer configured")
    coordinator, dialect = services.settings.coordinator, DIALECTS[provider.agent]
    if not services.settings.content.project_hooks:
        _refuse_unstoppable(dialect, workspace)
    marker = secrets.token_hex(16)
    is_own = has_own_config(provider, services.environ, dialect)
    plain, run_dir = _argv(services, run, workspace), Path(run.run_dir)
    env = _environment(services, provider, run, marker)
    argv, env, files = enclosing.enclosed(
        services, provider, workspace, run_dir=run_dir, argv=plain, env=env, has_own_config=is_own
    )
    return LaunchSpec(
        task=task.name,
        token=run.token,
        argv=argv,
        cwd=str(workspace.path),
        env=env,
        marker=marker,
        prompt=_prompt(services, task, run, workspace),
        deadline_at=services.now() + timedelta(hours=coordinator.worker_timeout_hours),
        stall=timedelta(minutes=coordinator.stall_timeout_minutes),
        stop_signal=provider.stop_signal,
        grace=timedelta(seconds=coordinator.stop_grace_seconds),
        limits=_limits(services),
        most_processes=_most_processes(services, workspace),
        agent=provider.agent,
        config_dir=CONFIG_DIR if is_own else None,
        config_files=dialect.config_files,
        files=files,
    )


def _refuse_unstoppable(dialect: Dialect, workspace: Workspace) -> None:
    """Some programs run files of the repository whatever they are told: then they are not started there."""
    for pattern in dialect.project_hooks.unstoppable:
        found = next(workspace.path.glob(pattern), None)
        if found is not None:
            raise SpawnError(
                f"{dialect.name} would run what the repository has in {found.relative_to(workspace.path)}, "
                "and cannot be told not to; use another provider, or set content.project_hooks = true"
            )


def _limits(services: Services) -> Limits:
    limits = services.settings.worker_limits
    return Limits(memory_max=limits.memory_max, cpu_percent=limits.cpu_percent, tasks_max=limits.tasks_max)


def _most_processes(services: Services, workspace: Workspace) -> int | None:
    """Where the kernel has a limit as well, it is this one that comes later."""
    return None if workspace.git is None else services.settings.sandbox.processes + EXTRA_PROCESSES


def _argv(services: Services, run: Run, workspace: Workspace) -> tuple[str, ...]:
    providers = services.providers()
    run_dir = Path(run.run_dir)
    provider = providers.get_provider(run.provider)
    program, *arguments = provider.build_command(
        run_dir / "prompt.md",
        run.model,
        run_dir / "output.jsonl",
        workspace=workspace.path,
        limits=_limits_of_its_own(services, run, provider),
    )
    # The worker stands in the workspace: a bare name must not be looked up there.
    return (providers.program_of(run.provider) or program, *arguments)


def _limits_of_its_own(services: Services, run: Run, provider: Provider) -> tuple[str, ...]:
    """What holds the line of a budget while nobody is there to count: the program's own options."""
    options = {Unit.USD: provider.max_cost, Unit.TOKENS: provider.max_tokens}
    if not any(options.values()):
        return ()
    most = most_of(services.store, services.settings, run, services.now())
    return tuple(
        word
        for unit, option in options.items()
        if option and unit in most
        for word in (option, f"{most[unit]:f}")
    )


def _environment(services: Services, provider: ProviderSettings, run: Run, marker: str) -> dict[str, str]:
    env = worker_environment(
        provider,
        services.environ,
        DIALECTS[provider.agent],
        marker=marker,
        run_dir=Path(run.run_dir),
        attempt=run.attempt,
        project_hooks=services.settings.content.project_hooks,
    )
    # Our own agent reads its preferences there, and the daemon's file need not be the checkout's.
    own = {"COORDINATOR_CONFIG": str(services.loaded.path)} if provider.agent == "openrouter-cli" else {}
    return own | env


def _handover(task: Task, run: Run) -> str | None:
    """Who worked on it just before, where that was somebody else. Nothing an agent or a stranger wrote."""
    last = task.failed_on[-1] if task.failed_on else None
    if last is None or (last.provider, last.model) == (run.provider, run.model):
        return None
    return f"{last.provider} / {last.model}, until it could not go on ({last.why.replace('_', ' ')})"


def _template(services: Services, run: Run) -> str:
    """The prompt template of the workflow that a label asked for, as it was when the run was claimed."""
    decision = services.store.decision_of(run.run_id) if services.settings.workflows else None
    workflow = decision.workflow if decision else None
    return str(workflow["prompt"]) if workflow else TEMPLATE


def _prompt(services: Services, task: Task, run: Run, workspace: Workspace) -> str:
    return render(
        services.loaded.prompts_dir,
        _template(services, run),
        values=PromptValues(
            issue_number=task.issue_number,
            title=task.snapshot_title,
            body=task.snapshot_body,
            comments=task.snapshot_comments,
            repo=task.repo,
            branch=workspace.branch,
            labels=task.labels_of_others(services.settings.github.status_label_prefix),
            attempt=run.attempt,
            previous_failure=task.cause if run.attempt > 1 else None,
            handover=_handover(task, run),
            default_branch=workspace.default_branch,
        ),
    )
