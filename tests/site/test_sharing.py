"""What others show of the site, and the machines that others run it on."""

import json
import re
from xml.etree import ElementTree

import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image

from course import sharing
from tests.conftest import ROOT, pages

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
BASE = CONFIG["html"]["baseurl"]
README = (ROOT / "README.md").read_text()
MAKE = re.findall(r"^(make \w+)\b", README, re.M)  # the README's commands
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/course.yml").read_text())
DOCKERFILE = (ROOT / ".devcontainer/Dockerfile").read_text()


@pytest.mark.site
@pytest.mark.parametrize("name", pages())
def test_a_page_says_what_others_show_of_it(html, name):
    soup = BeautifulSoup((html / f"{name}.html").read_text(), "html.parser")
    tags = {tag["property"]: tag["content"] for tag in soup.select("meta[property^='og:']")}
    assert tags["og:url"] == soup.select_one("link[rel=canonical]")["href"] == f"{BASE}{name}.html"
    assert tags["og:title"] == soup.h1.get_text().removesuffix("#")
    assert tags["og:description"] == soup.select_one("meta[name=description]")["content"] != ""
    card = html / tags["og:image"].removeprefix(BASE)
    assert Image.open(card).size == sharing.SIZE and card.stat().st_size < 100_000


@pytest.mark.site
def test_the_sitemap_lists_every_page(html):
    found = ElementTree.parse(html / "sitemap.xml").getroot()
    listed = [element.text for element in found.findall(".//{*}loc")]
    assert sorted(listed) == sorted(f"{BASE}{name}.html" for name in pages())


@pytest.mark.parametrize("title", ["GQA", "a very long title " * 12, "Unzertrennlich" * 3])
def test_a_title_fits_its_card(title):
    image = sharing.card(title.strip(), "above").convert("L")
    ink = image.point(lambda value: 255 * (value < 128)).getbbox()
    assert ink[0] >= sharing.EDGE - 4 and ink[2] <= sharing.SIZE[0] - sharing.EDGE + 4
    assert ink[3] <= sharing.SIZE[1] - sharing.EDGE / 2


def commands() -> dict[str, list[str]]:
    """What the container and the workflow run, but for what prepares a bare system."""
    steps = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    ran = [step["run"] for step in steps if "run" in step]
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    return {"workflow": ran, "container": [container["postCreateCommand"]]}


def test_container_and_workflow_call_the_readmes_commands_and_no_others():
    assert MAKE == ["make book", "make test"]
    prepare = r"apt-get update && apt-get install -y --no-install-recommends ([a-z0-9 -]+)"
    own = r"git config --global --add safe\.directory \"\$GITHUB_WORKSPACE\""
    for where, ran in commands().items():
        calls = [line for line in ran if not re.fullmatch(f"{prepare}|{own}", line)]
        assert calls and set(calls) <= set(MAKE), (where, calls)
    assert commands()["workflow"].count("make test") == 1, "what is published was tested"


def test_both_are_the_debian_that_is_tested_with_the_same_packages():
    assert WORKFLOW["jobs"]["test"]["container"] == "debian:12"
    assert re.search(r"^FROM (.*)$", DOCKERFILE, re.M)[1] == "debian:12"
    install = r"install -y --no-install-recommends (.*)"
    first = WORKFLOW["jobs"]["test"]["steps"][0]["run"]
    assert re.search(install, first)[1] == re.search(install, DOCKERFILE)[1]
    index = WORKFLOW["jobs"]["test"]["env"]["PIP_EXTRA_INDEX_URL"]
    assert f"PIP_EXTRA_INDEX_URL={index}" in DOCKERFILE


def test_only_what_passed_on_main_is_published():
    publish, test = WORKFLOW["jobs"]["publish"], WORKFLOW["jobs"]["test"]
    assert publish["needs"] == "test" and "refs/heads/main" in publish["if"]
    upload = next(step for step in test["steps"] if "upload" in step.get("uses", ""))
    assert upload["with"]["path"] == "_build/html" and "refs/heads/main" in upload["if"]
