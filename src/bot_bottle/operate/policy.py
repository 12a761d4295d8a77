"""Changing what a running bottle may reach: from its file, or with a policy that was made elsewhere."""

from typing import Any, NamedTuple

from bot_bottle.errors import PlanError, SandboxError
from bot_bottle.policy.difference import difference
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.state.model import RunRecord

ANSWER_WITHIN = 45.0
"""Seconds for the keeper to answer. A change takes it 0.02; one that a bundle does not confirm is undone within 5, and then
another bundle is started, which may take 15 on a host that is very busy."""


class InForce(NamedTuple):
    """What a running bottle's bundle enforces; `credentials` are those of its plan, by reference.

    `base` is the policy without what was granted, which a reload puts another one in the place of; `model` is as in
    `RunPlan`.
    """

    policy: EgressPolicy
    base: EgressPolicy
    credentials: dict[str, list[Any]]
    way_out: bool
    model: tuple[tuple[str, int, str], ...] = ()


class Changed(NamedTuple):
    """A change that is in force, as the bundle confirmed. `restarted`: by a new bundle, so that every connection ended."""

    policy: str
    previous: str
    changed: bool
    restarted: bool


class Reload(NamedTuple):
    """What reading a bottle's file anew would change."""

    run: RunRecord
    policy: EgressPolicy
    expecting: str
    added: list[str]
    removed: list[str]
    notes: tuple[str, ...]


def in_force(run: RunRecord) -> InForce:
    """What is enforced in `run` now. Raises NotFoundError when it does not run."""
    from bot_bottle.launch import control

    said = control.ask(run.run_path, {"want": "policy"}, seconds=ANSWER_WITHIN)
    policy, base = (EgressPolicy.from_document(said[name]) for name in ("policy", "base"))
    model = tuple((str(host), int(port), str(protocol)) for host, port, protocol in said["model"])
    return InForce(policy, base, said["credentials"], said["way_out"], model)


def change_policy(run: RunRecord, policy: EgressPolicy, why: str, *, expecting: str = "") -> str:
    """Puts `policy` in force in the running bottle; its fingerprint, once who enforces it has confirmed it.

    Raises PlanError when it was refused: then what was in force still is. With `expecting` it is refused unless the policy
    of that fingerprint is in force. Raises NotFoundError when the bottle does not run, SandboxError when nobody answers.
    """
    return change(run, policy, why, expecting=expecting).policy


def change(run: RunRecord, policy: EgressPolicy, why: str, *, expecting: str = "") -> Changed:
    """Like `change_policy`, with everything that is known of the change."""
    from bot_bottle.launch import control

    hello = {"want": "change", "policy": policy.document(), "why": why, "expecting": expecting}
    said = control.ask(run.run_path, hello, seconds=ANSWER_WITHIN)
    if not said["applied"]:
        raise PlanError(
            "The policy was not changed",
            details=str(said["reason"]),
            resolution=f"In force is {str(said['fingerprint'])[:12]}; bot-bottle events {run.id} has the record.",
        )
    if said["base"] != policy.fingerprint():
        raise SandboxError("The keeper speaks of another policy", details=str(said["base"]))
    return Changed(said["fingerprint"], said["previous"], said["changed"], said["restarted"])


def from_file(name: str) -> Reload:
    """What the file of the bottle that the run `name` is in says now, beside what is in force. Changes nothing.

    Raises ManifestError when the file is wrong, PlanError when what it asks for can't be kept.
    """
    from bot_bottle.host import paths
    from bot_bottle.manifest.load import load_bottle
    from bot_bottle.operate.runs import find
    from bot_bottle.plan import check
    from bot_bottle.plan.resolve import egress

    run = find(name)
    now = in_force(run)
    bottle = load_bottle(run.bottle, root=paths.manifest_root())
    policy = egress(bottle["egress"], now.model)
    problems = (*check.of_bottle(bottle, policy), *_other_credentials(bottle, policy, now))
    check.refuse(problems, f"Bottle {run.bottle}")
    added, removed = difference(now.base, policy)
    return Reload(
        run, policy, now.policy.fingerprint(), added, removed, check.notes_on_egress(bottle["egress"])
    )


def apply(reload: Reload) -> Changed:
    """Puts what `from_file` found in force, if nothing else was changed since. Raises like `change_policy`."""
    return change(
        reload.run, reload.policy, f"reload of bottle {reload.run.bottle}", expecting=reload.expecting
    )


def _other_credentials(bottle: Any, policy: EgressPolicy, now: InForce) -> list[str]:
    """Credentials are read when a bottle starts; one that its file defines otherwise now can't be had without a start."""
    from bot_bottle.plan.resolve import credentials

    defined = {item.name: list(item) for item in credentials(bottle, {})}
    used = sorted({route.credential for route in policy.routes if route.credential is not None})
    return [
        f"credentials.{name}: it is read when a bottle starts, and was another then; start the bottle anew"
        for name in used
        if now.credentials.get(name) != defined.get(name)
    ]
