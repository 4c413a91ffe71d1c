"""From the label to the draft pull request, and the ends that are none of both success and failure."""

from __future__ import annotations

import json

from world import BOT, LABEL, MAINTAINER, REPO, WRITE, Result, World

PRICED = {
    "name": "claude-sonnet-4-5",
    "provider": "claude-cli",
    "cost_per_million_input": 3,
    "cost_per_million_output": 15,
    "cost_per_million_cache_read": 0.3,
    "cost_per_million_cache_write": 3.75,
}


def test_a_labelled_issue_becomes_a_draft_pull_request(a_world) -> None:
    world: World = a_world(models=[PRICED])
    number = world.issue(WRITE, title="Write a guide")
    world.start()
    task = world.until_state(number, "succeeded")

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    (pull,) = world.pulls(number)
    assert pull.draft
    assert pull.base == "main"
    assert pull.author == BOT
    assert (pull.body or "").startswith(f"Fixes #{number}\n")
    assert task.pr_number == pull.number
    assert task.pr_url in world.comment(number)
    assert set(world.server.issue(REPO, number).labels) == {LABEL, "coordinator:done"}
    world.until_quiet()
    assert not world.server.forbidden_requests
