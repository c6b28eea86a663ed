"""The fifteen chapters: one stem names a chapter everywhere.

`05_swa` is its page and its notebook; `ch05_swa` its folder of labs, its scenes, its test data.
`05b_name` is a second page of chapter 05, never a second chapter. A chapter is *open* once its page
stands in `_toc.yml`, and then it has all its parts; a *planned* one may have labs only.
"""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from labkit import paths

TITLES = {
    "00_one_token": "One token at a time",
    "01_where_the_work_goes": "Where the work goes",
    "02_kv_cache": "The KV cache",
    "03_gqa": "Grouped-query attention",
    "04_mla": "Multi-head latent attention",
    "05_swa": "Sliding windows",
    "06_moe": "Mixtures of experts",
    "07_deltanet": "Linear attention and gated DeltaNet",
    "08_choosing": "Choosing",
    "09_batching": "Batching",
    "10_paging": "Paging and prefix caching",
    "11_quantisation": "Quantisation",
    "12_speculation": "Speculative decoding",
    "13_scale": "Scaling to millions",
    "14_ladder": "The ladder",
}
# The lab deck that the course grew from has ids of its own: whoever comes from it finds the lab.
DECK = {
    "CH4B-LAB-01": "CH01-FLOPS",
    "CH4B-APP-A": "CH01-PROTOCOL",
    "CH4B-CODE-01": "CH02-LOOPS",
    "CH4B-LAB-02": "CH02-CACHED",
    "CH4B-LAB-03": "CH02-BASELINE",
    "CH4B-LAB-04": "CH03-SAVINGS",
    "CH4B-LAB-05": "CH03-HEADS",
    "CH4B-LAB-06": "CH04-ABSORBED",
    "CH4B-LAB-07": "CH05-RING",
    "CH4B-LAB-08": "CH06-DENSE",
    "CH4B-LAB-09": "CH08-FAIR",
    "CH4B-CODE-02": "CH08-SHELL",
    "CH4B-APP-B": "CH08-ORDER",
    "CH4B-APP-C": "CH08-PRETRAINING",
    # the same three as the deck prints them
    "CH4B-LAB-APP-A": "CH01-PROTOCOL",
    "CH4B-LAB-APP-B": "CH08-ORDER",
    "CH4B-LAB-APP-C": "CH08-PRETRAINING",
}
PAGE = re.compile(r"(\d\d)(b?)_(\w+)")  # 05_swa, 02b_online_softmax


@dataclass(frozen=True)
class Chapter:
    """A chapter, found by its stem. What belongs to the repository needs a clone of it."""

    stem: str  # 05_swa

    @property
    def number(self) -> str:
        return self.stem[:2]

    @property
    def title(self) -> str:
        return TITLES[self.stem]

    @property
    def folder(self) -> str:
        """The name of its labs' folder, its scenes' module and its test data: `ch05_swa`."""
        return f"ch{self.stem}"

    @property
    def package(self) -> str:
        return f"labkit_labs.{self.folder}"

    @property
    def lab_names(self) -> tuple[str, ...]:
        """The files of its folder that are labs, in the order in which they are run.

        ValueError for a folder that does not say.
        """
        if not (paths.labs() / self.folder).is_dir():
            return ()
        try:
            return tuple(import_module(self.package).LABS)
        except AttributeError:
            raise ValueError(
                f"labs/{self.folder}/__init__.py does not say LABS, its labs in their order"
            ) from None

    @property
    def checks(self) -> Path:
        """Its exercises' checks, there or not."""
        return paths.labs() / self.folder / "checks.py"

    @property
    def scenes(self) -> Path:
        """Its clips' scenes, there or not."""
        return paths.repository() / "animations/scenes" / f"{self.folder}.py"

    @property
    def clips(self) -> list[str]:
        """The scene classes that its modules list in CLIPS, read without running them."""
        folder = paths.repository() / "animations/scenes"
        sources = [p.read_text() for p in sorted(folder.glob(f"ch{self.number}*_*.py"))]
        return [
            ast.unparse(scene)
            for source in sources
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CLIPS"
            for scene in node.value.elts
        ]

    @property
    def page(self) -> Path:
        """Its page, there or not."""
        return paths.repository() / "book/chapters" / f"{self.stem}.md"

    @property
    def pages(self) -> list[Path]:
        """All its pages that are there: its own, then `NNb_…`."""
        folder = paths.repository() / "book/chapters"
        return sorted(folder.glob(f"{self.number}_*.md")) + sorted(
            folder.glob(f"{self.number}b_*.md")
        )

    @property
    def is_open(self) -> bool:
        """Does its page stand in the table of contents?"""
        return f"book/chapters/{self.stem}" in table_of_contents()

    def missing(self) -> list[str]:
        """The parts that an open chapter lacks."""
        root = paths.repository()
        parts = {
            "its page": self.page,
            "its checks": self.checks,
            "its clip's scenes": self.scenes,
            "its tests' data": root / "tests/chapters" / f"{self.folder}.py",
            **{
                f"the notebook of {p.stem}": root / "notebooks" / f"{p.stem}.ipynb"
                for p in self.pages
            },
        }
        lacking = [
            f"{what} ({os.path.relpath(path, root)})"
            for what, path in parts.items()
            if not path.exists()
        ]
        return lacking + ([] if self.lab_names else [f"a lab (labs/{self.folder}/)"])


def every() -> list[Chapter]:
    """The fifteen, in order."""
    return [Chapter(stem) for stem in TITLES]


def find(number: str) -> Chapter:
    """A chapter by its number. ValueError for one that there is not."""
    chapter = next((c for c in every() if c.number == str(number)), None)
    if chapter is None:
        last = list(TITLES)[-1][:2]
        raise ValueError(f"there is no chapter {number}: they run from 00 to {last}")
    return chapter


def opened() -> list[Chapter]:
    """The chapters whose pages stand in the table of contents."""
    return [chapter for chapter in every() if chapter.is_open]


def of_page(page: Path | str) -> Chapter | None:
    """The chapter that a page belongs to (`book/chapters/02b_online_softmax` to 02), if to any."""
    path = Path(page)
    found = PAGE.fullmatch(path.name.removesuffix(".md").removesuffix(".ipynb"))
    if not found or "chapters" not in path.parts:
        return None
    return next((c for c in every() if c.number == found[1]), None)


def table_of_contents() -> list[str]:
    """The pages of the site in their order, as `_toc.yml` names them."""
    import yaml

    toc = yaml.safe_load((paths.repository() / "_toc.yml").read_text())
    listed = [page["file"] for part in toc["parts"] for page in part["chapters"]]
    return [toc["root"], *listed]


def check() -> None:
    """ValueError, in one sentence, for a chapter that is not whole or not where its name says."""
    folder = paths.repository() / "book/chapters"
    for page in sorted(folder.glob("*.md")):
        named = PAGE.fullmatch(page.stem)
        owner = of_page(page)
        if not named or owner is None:
            known = ", ".join(TITLES)
            raise ValueError(f"{page.name} is no chapter's page: chapters are {known}")
        if not named[2] and page.stem != owner.stem:
            raise ValueError(
                f"{page.name} and {owner.stem}.md would both be chapter {owner.number}: a second"
                f" page of it is called {owner.number}b_{named[3]}.md"
            )
    for chapter in opened():
        if lacking := chapter.missing():
            raise ValueError(
                f"chapter {chapter.stem} is open (its page stands in _toc.yml) and lacks"
                f" {', '.join(lacking)}"
            )


def lab_id(name: str) -> str:
    """A lab's id for any name it goes by: `ch05-ring`, `CH4B-LAB-07` -> `CH05-RING`."""
    return DECK.get(name.upper(), name.upper())


def result_name(name: str) -> str:
    """Where results lie under labs/results: `CH05-RING`, `ch05/ring` -> `ch05/ring`.

    Results of no chapter lie in `bench`: `bench-transformers` -> `bench/transformers`.
    """
    folder, _, rest = lab_id(name).lower().replace("/", "-").partition("-")
    return f"{folder}/{rest}"
