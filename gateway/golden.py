"""Golden sets: files kept by digest, and the check of a candidate on one before anybody sees it.

`GoldenCheck` is one of the rollout controller's checks. What it found goes into the rollout's journal, for `explain`
and the report, and stays under the data directory for `GET /api/v1/models/{model}/golden/{candidate}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from adapters.server import InferenceServer
from adapters.triton.inference import Inference, Target
from gateway.artefacts import ArtefactStore
from gateway.contract.lines import Line
from gateway.envoy.context import label_output
from gateway.registry import Registry, Version
from gateway.routing_state import SERVED_VERSION
from rollout.evidence.golden.batches import batches
from rollout.evidence.golden.evaluate import evaluate
from rollout.evidence.golden.file import BadGoldenFile, GoldenRow, read_golden
from rollout.evidence.golden.picture import picture, title
from rollout.evidence.golden.score import refusal, score
from rollout.evidence.subject import FindSubject
from rollout.explain import GOLDEN
from rollout.performer import Checked

MAX_BYTES = 256 * 1024 * 1024


class GoldenStore:
    """The files by digest, and the last result of each candidate."""

    def __init__(self, root: Path) -> None:
        self._files = ArtefactStore(root=root, limit_bytes=MAX_BYTES)
        self._files.prepare()
        self._results = root / "results"
        self._results.mkdir(exist_ok=True)

    async def put(self, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """Keep a file; its digest and its number of examples. Raises BadGoldenFile, ArtefactTooLarge, EmptyArtefact."""
        staged = await self._files.receive(chunks)
        try:
            rows = await asyncio.to_thread(lambda: read_golden(staged.path.read_bytes()))
            self._files.keep(staged)
        finally:
            self._files.drop(staged)
        return staged.digest, len(rows)

    def rows(self, digest: str) -> tuple[GoldenRow, ...]:
        """Raises BadGoldenFile, also for a file that is not here."""
        try:
            return read_golden(self._files.path_of(digest).read_bytes())
        except OSError as error:
            raise BadGoldenFile((f"no file {digest} was uploaded",)) from error

    def save(self, line: str, candidate: int, result: dict[str, Any], drawing: str) -> None:
        base = self._results / f"{line}.{candidate}"
        base.with_name(base.name + ".svg").write_text(drawing)
        base.with_name(base.name + ".json").write_text(json.dumps(result))

    def result(self, line: str, candidate: int) -> dict[str, Any] | None:
        """What the last check of a candidate found (`GoldenScore.to_json`, with `refusal`); None without one."""
        try:
            value: dict[str, Any] = json.loads((self._results / f"{line}.{candidate}.json").read_text())
        except OSError:
            return None
        return value

    def drawing(self, line: str, candidate: int) -> str | None:
        """The picture of the same, SVG."""
        try:
            return (self._results / f"{line}.{candidate}.svg").read_text()
        except OSError:
            return None


class GoldenCheck:
    """The candidate and stable on the golden set of the rollout's spec, if it has one."""

    def __init__(
        self, *, registry: Registry, server: InferenceServer, store: GoldenStore, subject: FindSubject
    ) -> None:
        self._registry = registry
        self._server = server
        self._store = store
        self._subject = subject

    async def __call__(self, model: str, stable: int, candidate: int) -> Checked:
        """Raises ServerAway while a version cannot be asked: it is asked again."""
        subject = self._subject(model)
        golden = subject.spec.golden if subject else None
        if golden is None:
            return Checked()
        name = Line.parse(model).model
        ours, theirs = self._registry.version(name, stable), self._registry.version(name, candidate)
        label = label_output(theirs.contract.outputs)
        if not label:
            return Checked(
                f"{model} version {candidate} has no output that is a label, which a golden set could be compared with"
            )
        inference = Inference(self._server.grpc)
        try:
            rows = await asyncio.to_thread(self._store.rows, golden.file)
            marked = await evaluate(
                batches(rows, theirs.signature),
                inference=inference,
                stable=self._target(ours),
                candidate=self._target(theirs),
                label=label,
                batching=theirs.signature.batching,
            )
        except BadGoldenFile as error:
            return Checked(str(error))
        finally:
            await inference.close()
        found = score(marked)
        why = refusal(found, golden)
        result = {**found.to_json(), "file": golden.file, "stable": stable, "candidate": candidate, "refusal": why}
        drawing = picture(found, title(model, stable, candidate))
        await asyncio.to_thread(self._store.save, model, candidate, result, drawing)
        return Checked(refusal=why, note=found.words(), details={GOLDEN: result})

    def _target(self, version: Version) -> Target:
        if version.served is not None:
            return Target(version.served.name, version.served.version)
        return Target(self._server.served_name(version.model, version.number), SERVED_VERSION)
