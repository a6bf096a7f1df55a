"""Push a finished model to the Hub: the files that belong to it, and nothing else.

    python recipes/push_to_hub.py --model_dir outputs/cnn --hub_model_id me/cnn --dry_run
    python recipes/push_to_hub.py --model_dir outputs/cnn --hub_model_id me/cnn --hub_private_repo true

Shows every file with its size, and what is left out and why. Refuses a folder with a secret, a text of the data,
pickled weights or more than --max_gigabytes, naming file and line; then nothing is sent. The token is that of
`hf auth login`, of HF_TOKEN or --hub_token. A run does the same at its end: run_classification.py --push_to_hub true
--hub_model_id me/cnn.
"""

import sys
from pathlib import Path

from hf_ext import (
    PushArguments,
    check_target,
    known_rows,
    parse_arguments,
    plan_push,
    print_notes,
    push_folder,
    readable_errors,
    require_alone,
)


def main(argv: list[str]) -> None:
    (args,) = parse_arguments((PushArguments,), argv, __doc__)
    require_alone("A push")
    target = args.target() if args.dry_run else check_target(args.target())
    rows, notes = known_rows(Path(args.model_dir), args.data_files)
    print_notes(notes)
    if args.dry_run:
        plan = plan_push(args.model_dir, rows, target.secrets(), args.max_gigabytes)
        print(f"\n{plan.table()}\n")
        plan.raise_if_refused()
        print(f"Dry run: nothing was sent to {target.repo_id}.")
        return
    push_folder(args.model_dir, target, rows, args.max_gigabytes, args.commit_message)


if __name__ == "__main__":
    with readable_errors("push_to_hub.py"):
        main(sys.argv[1:])
