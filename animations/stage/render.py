"""From a scene class to its files: an mp4 that starts to play before it is loaded, WebVTT captions,
a poster.

    python -m animations.stage.render KVCacheLoop --quality 480p --out DIR
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
from manim import CairoRenderer, tempconfig
from PIL import Image

from animations.scenes import clips
from animations.stage.clock import CourseScene, write_vtt
from labkit import modules, results

QUALITIES = {  # width, height, frames a second
    "240p": (426, 240, 15),
    "480p": (854, 480, 30),
    "720p": (1280, 720, 30),
    "1080p": (1920, 1080, 60),
    "2160p": (3840, 2160, 60),
    "4320p": (7680, 4320, 30),
}
# what finds and loads: no picture depends on it
LOADS = (
    "animations.scenes",
    "labkit.chapters",
    "labkit.modules",
    "labkit.paths",
    "labkit.results",
    "labkit.traces",
)
X264 = {
    "crf": "20",
    "preset": "medium",
    "tune": "animation",
    "x264-params": "keyint=300:colorprim=bt709:transfer=bt709:colormatrix=bt709",
}


@dataclass(frozen=True)
class Clip:
    """The files of a rendered scene, and its length in seconds."""

    mp4: Path
    vtt: Path
    poster: Path
    seconds: float


class Recorder(CairoRenderer):
    """Draws frames straight into one H.264 stream. (Manim's own writer starts a new stream, with a
    new key frame, for each play.)
    """

    def __init__(self, path: Path, width: int, height: int, rate: int):
        super().__init__()
        self.file = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self.stream = self.file.add_stream("libx264", rate=rate, options=X264)
        self.stream.width = width
        self.stream.height = height
        self.stream.pix_fmt = "yuv420p"
        self.frames = 0

    def add_frame(self, frame, num_frames=1):
        picture = av.VideoFrame.from_ndarray(frame[..., :3].copy(), format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709"
        )
        for _ in range(num_frames):
            picture.pts = self.frames
            self.frames = self.frames + 1
            self.file.mux(self.stream.encode(picture))
        self.time = self.frames / self.camera.frame_rate

    def close(self):
        self.file.mux(self.stream.encode())
        self.file.close()


def settings(width: int, height: int, rate: int, media: str) -> dict:
    """Manim's configuration for drawing in this process, quietly, leaving nothing behind but what
    we write.
    """
    return {
        "format": "none",
        "dry_run": True,
        "disable_caching": True,
        "progress_bar": "none",
        "verbosity": "ERROR",
        "pixel_width": width,
        "pixel_height": height,
        "frame_rate": rate,
        "media_dir": media,
    }


def render(
    scene_class: type[CourseScene], quality: str = "480p", out_dir: Path | str = ".", clock=None
) -> Clip:
    """Draw a scene into `out_dir` as `<clip_name>.mp4`, `.vtt` and `.webp`, replacing what is there
    only when all is done.

    clock: None = the clip's own pace; a NarrationClock re-times the scene. Raises ValueError for an
    unknown quality.
    """
    if quality not in QUALITIES:
        raise ValueError(f"films come in {', '.join(QUALITIES)}, not {quality!r}")
    width, height, rate = QUALITIES[quality]
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out) as folder,
        tempconfig(settings(width, height, rate, folder)),
    ):
        part = {
            kind: Path(folder) / f"{scene_class.clip_name}.{kind}"
            for kind in ("mp4", "vtt", "webp")
        }
        recorder = Recorder(part["mp4"], width, height, rate)
        with closing(recorder):
            scene = scene_class(clock=clock, renderer=recorder)
            scene.render()
        write_vtt(scene.cues, part["vtt"])
        Image.fromarray(scene.poster).convert("RGB").save(part["webp"], quality=88, method=6)
        done = {kind: path.replace(out / path.name) for kind, path in part.items()}
    return Clip(done["mp4"], done["vtt"], done["webp"], scene.time)


def sources(scene_class: type[CourseScene]) -> list[Path]:
    """Every file that a clip is made from: when none has changed, neither has the clip.

    Its scene, the stage, the formulas and tables that its numbers come from, and the results that
    it reads; not the code that measured them, nor what only loads them.
    """
    own = Path(sys.modules[scene_class.__module__].__file__)
    code = modules.closure(own, __file__, without=LOADS)
    tables = [
        table
        for path in code
        for table in path.parent.glob("data/*.json")
        if f'"{table.name}"' in path.read_text()
    ]
    measured = [
        path for pattern in scene_class.reads for path in sorted(results.folder().glob(pattern))
    ]
    return [*code, *tables, *measured]


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 2 for bad input, said in one line."""
    known = {scene.__name__: scene for scene in clips()}
    parser = argparse.ArgumentParser(
        prog="python -m animations.stage.render",
        description="Render a clip: mp4, captions, poster.",
    )
    parser.add_argument("scene", choices=sorted(known))
    parser.add_argument("--quality", choices=list(QUALITIES), default="480p")
    parser.add_argument("--out", type=Path, default=Path("_build/clips"))
    options = parser.parse_args(arguments)
    try:
        clip = render(known[options.scene], options.quality, options.out)
    except (OSError, RuntimeError, ValueError) as e:
        print(e, file=sys.stderr)
        return 2
    print(f"{clip.mp4}: {clip.seconds:.1f} s, {clip.mp4.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
