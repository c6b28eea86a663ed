"""Render the chapters' clips at 480p into book/_static/clips, two at a time; a clip whose sources
have not changed stays.

    python scripts/render.py                 all
    python scripts/render.py --chapter 02    one chapter's
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from concurrent.futures import ProcessPoolExecutor

from root import ROOT

OUT = ROOT / "book/_static/clips"
QUALITY = "480p"
KINDS = ("mp4", "vtt", "webp")


def key(scene) -> str:
    """What the clip is made from, as one hash."""
    from animations.stage.render import sources

    made_from = b"".join(path.read_bytes() for path in sorted(sources(scene)))
    return hashlib.sha256(QUALITY.encode() + made_from).hexdigest()


def current(scene) -> bool:
    stamp = OUT / f"{scene.clip_name}.key"
    whole = all((OUT / f"{scene.clip_name}.{kind}").exists() for kind in KINDS)
    return whole and stamp.exists() and stamp.read_text() == key(scene)


def draw(name: str) -> str:
    """Render one clip, in a process of its own. Returns a line to print."""
    from animations.scenes import clips
    from animations.stage.render import render

    scene = next(scene for scene in clips() if scene.clip_name == name)
    made = render(scene, QUALITY, OUT)
    (OUT / f"{name}.key").write_text(key(scene))
    return f"{name}: {made.seconds:.0f} s, {made.mp4.stat().st_size / 1e6:.2f} MB"


def tidy(scenes: list[type]) -> None:
    """Remove the clips that no scene makes any more, and what a stopped render left."""
    known = {scene.clip_name for scene in scenes}
    for path in OUT.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.stem not in known:
            path.unlink()


def main(chapter: str = "") -> None:
    from animations.scenes import clips

    OUT.mkdir(parents=True, exist_ok=True)
    if not chapter:
        tidy(clips())
    todo = [scene.clip_name for scene in clips(chapter) if not current(scene)]
    if todo:
        with ProcessPoolExecutor(max_workers=2) as pool:
            for line in pool.map(draw, todo):
                print(f"clip: {line}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Render the chapters' clips.")
    parser.add_argument("--chapter", default="", help="such as 02; without it, all")
    main(parser.parse_args().chapter)
