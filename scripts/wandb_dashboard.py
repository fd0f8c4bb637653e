"""Build the W&B workspace and report of a project: `python scripts/wandb_dashboard.py --entity ME [--save]`.

Without --save both are built and checked here, and nothing is sent.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from uniad_lightning.errors import InputError
from uniad_lightning.results.run_folder import write_text


def main(options: argparse.Namespace) -> None:
    if find_spec("wandb_workspaces") is None:
        raise InputError("needs W&B's package wandb-workspaces: pip install wandb-workspaces")
    from uniad_lightning.paper.wandb_pages import MVTEC, build_pages, save, specification, summary

    pages = build_pages(entity=options.entity, project=options.project, categories=options.categories or MVTEC)
    checked = {kind: specification(page) for kind, page in pages._asdict().items()}
    print(summary(pages))
    if options.out is not None:
        write_text(options.out, json.dumps(checked, indent=2) + "\n")
        print(f"specification: {options.out}")
    if options.save:
        print(*save(pages), sep="\n")
    else:
        print("built and checked, not sent; --save sends them, which needs a W&B account (wandb login)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entity", required=True, help="user or team that owns the project")
    parser.add_argument("--project", default="uniad-lightning", help="where the runs are (default: %(default)s)")
    parser.add_argument(
        "--categories", nargs="+", metavar="NAME", help="categories with panels of their own (default: MVTec AD's 15)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the specification as JSON")
    parser.add_argument("--save", action="store_true", help="save both as new pages of the project")
    try:
        main(parser.parse_args())
    except InputError as error:
        print(f"wandb_dashboard: {error}", file=sys.stderr)
        sys.exit(2)
