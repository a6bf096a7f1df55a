"""What a push of a finished model can be told."""

from dataclasses import dataclass, field

from hf_ext.errors import ConfigurationError
from hf_ext.hub.plan import MAX_GIGABYTES
from hf_ext.hub.push import HubTarget


@dataclass
class PushArguments:
    """
    Which model is pushed, and where to.

    Raises:
        ConfigurationError: If either is missing.
    """

    _argument_group_name = "hub"

    model_dir: str | None = field(default=None, metadata={"help": "Folder of the model, such as a run's output_dir."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Name on the Hub: NAME or NAMESPACE/NAME."})
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "Whether a new repository is private; by default what the Hub makes of it."}
    )
    hub_token: str | None = field(
        default=None, metadata={"help": "Token that may write; by default HF_TOKEN or the one of `hf auth login`."}
    )
    hub_revision: str | None = field(default=None, metadata={"help": "Branch to push to; by default the main one."})
    data_files: list[str] | None = field(
        default=None,
        metadata={"help": "Files whose texts must not be pushed; by default those that run.json in the folder names."},
    )
    max_gigabytes: float = field(default=MAX_GIGABYTES, metadata={"help": "Refuse to push more than this."})
    commit_message: str = field(default="Push a model", metadata={"help": "Of the commit."})
    dry_run: bool = field(default=False, metadata={"help": "Show what would be pushed; send nothing."})

    def __post_init__(self):
        if self.model_dir is None:
            raise ConfigurationError("Pass --model_dir FOLDER: a run's output_dir, or what save_pretrained wrote.")
        if self.hub_model_id is None:
            raise ConfigurationError("Pass --hub_model_id NAMESPACE/NAME: what the model is called on the Hub.")
        if self.max_gigabytes <= 0:
            raise ConfigurationError(f"max_gigabytes is {self.max_gigabytes:g}; it must be above 0.")

    def target(self) -> HubTarget:
        """Where to push to."""
        return HubTarget(self.hub_model_id, self.hub_private_repo, self.hub_token, self.hub_revision)
