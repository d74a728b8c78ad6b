"""Training runs on disk: a folder for each, made so that whoever dies in the middle leaves something sound.

A run's folder::

    recipe.json            what is trained, on what, and how; written once
    state.json             how far it is; replaced as a whole
    metrics.jsonl          one line for each logged step
    run.lock               locked while somebody trains; the kernel lets go when that process dies
    checkpoints/step-N/    complete, with manifest.json; written elsewhere and renamed into place
    model/ or adapter/     the result, in the same way

Whether a run is `interrupted` stands nowhere: it is a run whose state says `running` and whose lock nobody holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

RunState = Literal["new", "running", "done", "failed", "cancelled", "interrupted"]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MANIFEST: Final = "manifest.json"
RECIPE: Final = "recipe.json"
STAGING: Final = ".staging"
"""Prefix of what is being written. Whoever holds the lock may throw it away."""
STEP_PREFIX: Final = "step-"

LOCK_ATTEMPTS: Final = 5
LOCK_PAUSE: Final = 0.02
"""Seconds between two attempts: `is_locked` takes the lock for a moment to see whether it is free."""
BLOCK: Final = 1 << 20


class Checkpoint(NamedTuple):
    """A complete checkpoint."""

    step: int
    path: Path


class Found(NamedTuple):
    """The newest checkpoint that is sound, and why newer ones are not."""

    checkpoint: Checkpoint | None
    warnings: list[str]


class RunFolder:
    """One run. Several processes may look at it; who holds `lock()` owns everything in it.

    Args:
        path: the folder, whose name is the run's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.checkpoints_path = path / "checkpoints"
        self.metrics_path = path / "metrics.jsonl"

    @property
    def exists(self) -> bool:
        """Whether there is such a run."""
        return (self.path / RECIPE).is_file()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Own the run while the block lasts. The folder is made if need be.

        Raises:
            BridgeError: `conflict`, somebody owns it.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # a recipe may hold rows of somebody's data
        descriptor = os.open(self.path / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(descriptor):
                owner = self.state().get("worker")
                raise BridgeError(
                    ErrorCode.CONFLICT,
                    f"Run {self.name!r} is being trained right now{f' by {owner}' if owner else ''}. Wait for it or "
                    "cancel it, or train under another name.",
                    details={"run": self.name, **({"worker": owner} if owner else {})},
                )
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Whether somebody trains it now, in whatever process of this machine."""
        try:
            descriptor = os.open(self.path / "run.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------------ recipe, state, metrics

    def write_recipe(self, recipe: dict[str, Any]) -> None:
        """Remember what the run is; after this, it exists."""
        write_json(self.path / RECIPE, recipe)

    def recipe(self) -> dict[str, Any]:
        """What the run is.

        Raises:
            BridgeError: `handler_error`, its file is damaged.
        """
        recipe = _read_json(self.path / RECIPE)
        if recipe is None:
            raise BridgeError(
                ErrorCode.HANDLER_ERROR,
                f"Run {self.name!r}: {RECIPE} is damaged, so nobody knows what it trains; delete the run "
                "(transformers:delete_run) and train again.",
                details={"run": self.name},
            )
        return recipe

    def state(self) -> dict[str, Any]:
        """How far it is; empty before the first step, and where the file is damaged."""
        return _read_json(self.path / "state.json") or {}

    def update(self, **changes: Any) -> None:
        """Change the state; for the owner."""
        write_json(self.path / "state.json", {**self.state(), **changes, "updated_at": time.time()})

    def describe(self) -> dict[str, Any]:
        """Everything about the run that is quick to know."""
        state = self.state()
        name: RunState = state.get("state", "new")
        if name == "running" and not self.is_locked():
            name = "interrupted"
        recipe = _read_json(self.path / RECIPE) or {}
        return {
            "run": self.name,
            **{key: state.get(key) for key in ("step", "total", "loss", "started_at", "updated_at", "error", "result")},
            "state": name,
            "model": recipe.get("model"),
            "task": recipe.get("task"),
            "settings": recipe.get("settings"),
            "checkpoints": [checkpoint.step for checkpoint in self.checkpoints()],
            "folder": str(self.path),
        }

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Keep one line of the loss curve; for the owner."""
        with self.metrics_path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The loss curve so far; a line that a crash cut off is left out."""
        rows = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
        return rows

    def rewind_metrics(self, step: int) -> None:
        """Forget what was measured after a step that is trained again; for the owner."""
        kept = [row for row in self.metrics() if row.get("step", 0) <= step]
        _replace(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))

    # ------------------------------------------------------------------ checkpoints

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints, oldest first. Each was complete when it got its name."""
        if not self.checkpoints_path.is_dir():
            return []
        found = [
            Checkpoint(int(path.name.removeprefix(STEP_PREFIX)), path)
            for path in self.checkpoints_path.iterdir()
            if path.name.startswith(STEP_PREFIX) and path.name.removeprefix(STEP_PREFIX).isdigit()
        ]
        return sorted(found)

    def newest_sound(self) -> Found:
        """Look for the newest checkpoint whose files are what was written."""
        warnings: list[str] = []
        for checkpoint in reversed(self.checkpoints()):
            damage = damage_of(checkpoint.path)
            if damage is None:
                return Found(checkpoint, warnings)
            warnings.append(f"checkpoint of step {checkpoint.step} is not used: {damage}")
        return Found(None, warnings)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to write into; it is gone after the block, with what was not moved out of it."""
        path = self.path / f"{STAGING}-{os.urandom(4).hex()}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def clear_staging(self) -> None:
        """Throw away what a dead process was writing; for the owner."""
        for path in self.path.glob(f"{STAGING}-*"):
            shutil.rmtree(path, ignore_errors=True)

    def keep(self, written: Path, step: int, keep: int) -> None:
        """Make a checkpoint of a folder in `staging`, and delete all but the last `keep`; for the owner."""
        self.checkpoints_path.mkdir(exist_ok=True)
        put_in_place(written, self.checkpoints_path / f"{STEP_PREFIX}{step}")
        for checkpoint in self.checkpoints()[:-keep]:
            self.discard(checkpoint.path)

    def discard(self, path: Path) -> None:
        """Delete a folder of the run, so that nobody ever sees half of it under its name."""
        doomed = self.path / f"{STAGING}-{os.urandom(4).hex()}"
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


class Runs:
    """The folder of all runs.

    Args:
        path: made with the first run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def at(self, name: str) -> RunFolder:
        """Return the run of that name, whether it exists or not.

        Raises:
            BridgeError: `invalid_argument`, nothing may be called like that.
        """
        if not NAME.fullmatch(name):
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT,
                "run: expected a name of 1 to 100 letters, digits, '.', '_' and '-', the first a letter or digit",
                details={"argument": "run"},
            )
        return RunFolder(self.path / name)

    def find(self, name: str) -> RunFolder:
        """Return the run of that name.

        Raises:
            BridgeError: `resource_not_found`, with the names that there are.
        """
        run = self.at(name)
        if not run.exists:
            known = [each.name for each in self.all()]
            has = f"there are {', '.join(known[-10:])}" if known else "there is none yet"
            raise BridgeError(
                ErrorCode.RESOURCE_NOT_FOUND, f"Training run not found: {name} ({has})", details={"run": name}
            )
        return run

    def all(self) -> list[RunFolder]:
        """Every run, oldest first."""
        if not self.path.is_dir():
            return []
        runs = [run for run in (RunFolder(path) for path in self.path.iterdir()) if NAME.fullmatch(run.name)]
        return sorted((run for run in runs if run.exists), key=lambda run: (run.path / RECIPE).stat().st_mtime_ns)

    def delete(self, name: str) -> None:
        """Delete a run, its checkpoints and its result.

        Raises:
            BridgeError: `resource_not_found`, or `conflict` while it is trained.
        """
        run = self.find(name)
        with run.lock():
            doomed = self.path / f"{STAGING}-{os.urandom(4).hex()}"
            run.path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


# ---------------------------------------------------------------- files


def _locked(descriptor: int) -> bool:
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < LOCK_ATTEMPTS - 1:
                time.sleep(LOCK_PAUSE)
        else:
            return True
    return False


def write_json(path: Path, value: Any) -> None:
    """Replace a file as a whole, durably."""
    _replace(path, json.dumps(value, indent=1))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{STAGING}-{os.urandom(4).hex()}-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def put_in_place(written: Path, place: Path) -> None:
    """Give a complete folder its name, after its files are on the disk and listed with their digests.

    What stood at `place` is replaced. After a crash at any moment, what stands there is complete, or nothing is there.
    """
    files = {str(path.relative_to(written)): path for path in sorted(written.rglob("*")) if path.is_file()}
    write_json(
        written / MANIFEST, {"files": {name: [path.stat().st_size, digest(path)] for name, path in files.items()}}
    )
    for path in files.values():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if place.exists():
        old = written.with_name(f"{written.name}-replaced")
        place.rename(old)
        written.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        written.rename(place)
    _sync_folder(place.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """BLAKE2 of a file: about as fast as the disk, and nobody's signature."""
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def damage_of(folder: Path) -> str | None:
    """Say what is wrong with the files of a folder that `put_in_place` made; None if nothing is."""
    manifest = _read_json(folder / MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict):
        return f"its {MANIFEST} is missing or damaged"
    for name, (size, known) in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or digest(path) != known:
            return f"{name} is damaged"
    return None


def disk_full(error: BaseException, folder: Path) -> BridgeError | None:
    """Tell a full disk from other failures to write; PyTorch and safetensors say it in words of their own.

    Returns:
        The error to raise, or None.
    """
    numbers = {errno.ENOSPC, errno.EDQUOT}
    text = str(error)
    said = isinstance(error, OSError) and error.errno in numbers
    said = said or "No space left" in text or "os error 28" in text or "Disk quota" in text
    free = shutil.disk_usage(folder).free
    if not said and not ("PytorchStreamWriter" in text or "unexpected pos" in text):
        return None
    return BridgeError(
        ErrorCode.HANDLER_ERROR,
        f"The disk is full: {folder} has {free / 1e6:,.1f} MB left, too little for a checkpoint. The checkpoint before "
        "is kept. Make room, or use another runs_folder, and resume.",
        details={"reason": "disk_full", "folder": str(folder), "free_bytes": free},
        type="DiskFull",
    )
