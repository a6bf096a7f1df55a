"""Pushing a finished model to the Hub: whether that can work at all, first; and the push, last."""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import TrainingArguments

from hf_ext.errors import ConfigurationError, PushError
from hf_ext.evaluation.model_card import FOLDER
from hf_ext.hub.model_files import CARD, is_replaced
from hf_ext.hub.plan import MAX_GIGABYTES, PushPlan, plan_push
from hf_ext.secret_patterns import environment_secrets, without_secrets

CHECKPOINT_STRATEGIES = ("checkpoint", "all_checkpoints")
LOGIN = "Log in with `hf auth login`, set HF_TOKEN, or pass --hub_token"
HINTS = {
    401: f"The token was not accepted. {LOGIN}.",
    403: "The token may not write there: it needs the role `write` (https://huggingface.co/settings/tokens).",
    404: "There is no such repository or branch, or the token may not see it.",
}


@dataclass(frozen=True)
class HubTarget:
    """
    Where a model is pushed to.

    Args:
        repo_id (`str`): `"name"` or `"namespace/name"`.
        private (`bool`, *optional*): Whether a new repository is private; by default what the Hub makes of it.
        token (`str`, *optional*): By default the one of `HF_TOKEN` or `hf auth login`. Never shown.
        revision (`str`, *optional*): The branch; by default the main one.
    """

    repo_id: str
    private: bool | None = None
    token: str | None = field(default=None, repr=False)
    revision: str | None = None

    def secrets(self) -> dict[str, str]:
        """What must be neither pushed nor shown: what it is -> the secret."""
        token = self.token or get_token()
        return {"the Hub token": token} if token else {}

    def command(self, folder: Path) -> str:
        """What to type to push a folder later."""
        words = ["python", "recipes/push_to_hub.py", "--model_dir", str(folder), "--hub_model_id", self.repo_id]
        if self.private is not None:
            words += ["--hub_private_repo", str(self.private).lower()]
        if self.revision is not None:
            words += ["--hub_revision", self.revision]
        return shlex.join(words)


def check_target(target: HubTarget) -> HubTarget:
    """
    Ask the Hub who the token belongs to, before anything takes time. Nothing is made there.

    Args:
        target ([`HubTarget`]): Where to push later.

    Returns:
        [`HubTarget`]: With the namespace, which is the user's own unless one was given.

    Raises:
        ConfigurationError: If the name is none, there is no network or no token, or the token may not write there.
    """
    try:
        validate_repo_id(target.repo_id)
    except HFValidationError as error:
        raise ConfigurationError(f"hub_model_id is {target.repo_id!r}: {error}") from error
    if is_offline_mode():
        raise ConfigurationError(
            "push_to_hub in offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set): unset it, or leave "
            "push_to_hub out and push later with recipes/push_to_hub.py."
        )
    if not target.secrets():
        raise ConfigurationError(f"push_to_hub: there is no token for the Hub. {LOGIN}.")
    try:
        user = HfApi().whoami(token=target.token)
    except Exception as error:
        raise ConfigurationError(
            f"push_to_hub: the Hub did not tell who the token belongs to: {_explanation(error, target)} Or leave "
            "push_to_hub out and push later with recipes/push_to_hub.py."
        ) from error
    namespace, _, name = target.repo_id.rpartition("/")
    own = [user["name"], *(organization["name"] for organization in user.get("orgs", []))]
    if namespace and namespace not in own:
        raise ConfigurationError(
            f"hub_model_id is {target.repo_id}, but the token of {user['name']} may write to {', '.join(own)} only."
        )
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ConfigurationError(f"push_to_hub: the token of {user['name']} may only read. {HINTS[403]}")
    return HubTarget(f"{namespace or user['name']}/{name}", target.private, target.token, target.revision)


def take_target(training_args: TrainingArguments) -> HubTarget | None:
    """
    Take the push out of the hands of a Trainer, which would push everything in the folder at every save, and keep the
    token out of what it writes.

    Args:
        training_args ([`~transformers.TrainingArguments`]): `push_to_hub` and `hub_token` are unset in it.

    Returns:
        [`HubTarget`], or `None` if nothing is to be pushed.

    Raises:
        ConfigurationError: If nothing is trained, or checkpoints are to be pushed.
    """
    token, training_args.hub_token = training_args.hub_token, None
    if not training_args.push_to_hub:
        return None
    check_strategy(training_args)
    if not training_args.do_train:
        raise ConfigurationError(
            "push_to_hub: this run trains no model (do_train is false). Push one that is there with "
            "recipes/push_to_hub.py --model_dir FOLDER."
        )
    training_args.push_to_hub = False
    name = training_args.hub_model_id or Path(training_args.output_dir).absolute().name
    return HubTarget(name, training_args.hub_private_repo, token, training_args.hub_revision)


def check_strategy(training_args: TrainingArguments) -> None:
    """
    See that only the finished model is to be pushed.

    Raises:
        ConfigurationError: If checkpoints are.
    """
    strategy = training_args.hub_strategy.value
    if training_args.push_to_hub and strategy in CHECKPOINT_STRATEGIES:
        raise ConfigurationError(
            f"hub_strategy is {strategy}, which publishes optimizer and random state. Only the finished model is "
            "pushed: leave hub_strategy out, and keep checkpoints on a disk."
        )


def push_folder(
    folder: str | os.PathLike,
    target: HubTarget,
    rows: Iterable[Any] = (),
    max_gigabytes: float = MAX_GIGABYTES,
    commit_message: str = "Push a model",
) -> str:
    """
    Push the model in a folder: show what is pushed, refuse what must not be, and make one commit of the rest.

    Args:
        folder (`str` or `os.PathLike`): As `save_pretrained` or a run leaves it.
        target ([`HubTarget`]): Where to.
        rows, max_gigabytes: As [`plan_push`].
        commit_message (`str`, *optional*, defaults to `"Push a model"`): Of the commit.

    Returns:
        `str`: The address of the commit.

    Raises:
        ConfigurationError: If the folder is refused; nothing was sent.
        PushError: If the Hub does not take it; the message says how to push later.
    """
    plan = plan_push(folder, rows, target.secrets(), max_gigabytes)
    print(f"\n{plan.table()}\n")
    plan.raise_if_refused()
    url = push_plan(plan, target, commit_message)
    print(f"Pushed: {url}")
    return url


def push_plan(plan: PushPlan, target: HubTarget, commit_message: str) -> str:
    """
    Make one commit of the files of a plan. Files of an earlier model that this one does not have are removed from the
    repository: thresholds of other weights would be applied to these.

    Args:
        plan ([`PushPlan`]): Without findings.
        target ([`HubTarget`]): Where to. The repository is made if there is none.
        commit_message (`str`): Of the commit.

    Returns:
        `str`: The address of the commit.

    Raises:
        PushError: If the Hub does not take it.
    """
    api = HfApi(token=target.token, library_name="hf_ext")
    try:
        repo_id = api.create_repo(target.repo_id, private=target.private, exist_ok=True).repo_id
        info = api.model_info(repo_id, revision=target.revision)
        if target.private and info.private is False:
            raise ConfigurationError(
                f"{repo_id} is there already and is public, which hub_private_repo=true does not change. Make it "
                "private on its page, or name another."
            )
        return api.create_commit(
            repo_id, _operations(plan, repo_id, info), commit_message=commit_message, revision=target.revision
        ).commit_url
    except ConfigurationError:
        raise
    except Exception as error:
        # Whatever the client, the network or the Hub says: hours of training are not to end in a traceback.
        raise PushError(
            f"{target.repo_id} could not be pushed: {_explanation(error, target)} The model is whole in {plan.folder}. "
            f"Push it later: {target.command(plan.folder)}"
        ) from error


# ---- Inside ----


def _operations(plan: PushPlan, repo_id: str, info: Any) -> list[CommitOperationAdd | CommitOperationDelete]:
    added = []
    for name in plan.files:
        content: str | bytes = str(plan.folder / name)
        if name == CARD:
            content = Path(content).read_text(encoding="utf-8").replace(FOLDER, repo_id).encode()
        added.append(CommitOperationAdd(name, content))
    there = [file.rfilename for file in info.siblings or []]
    return added + [CommitOperationDelete(name) for name in there if is_replaced(name) and name not in plan.files]


def _explanation(error: BaseException, target: HubTarget) -> str:
    """What went wrong, without secrets, and what to do about it."""
    said, status, cause = [], None, error
    while cause is not None:
        said.append(" ".join(str(cause).split()) or type(cause).__name__)
        status = status or getattr(getattr(cause, "response", None), "status_code", None)
        cause = cause.__cause__
    text = without_secrets(said[0], {**environment_secrets(os.environ), **target.secrets()}).rstrip(".")
    return f"{text}. {HINTS.get(status, '')}".strip()
