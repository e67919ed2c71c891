"""Probes of the DICOMweb tree: frames through a web server, documents and pictures made on demand."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from benchmark import drives, machine
from benchmark.drives import Drive, Plain
from benchmark.measure import Failed, Figure, Run, compete, say, timed
from benchmark.reading import mounted
from benchmark.stage import Stage
from dicomfs.archive import documents
from dicomfs.archive.archive import Archive
from dicomfs.archive.makers import Job, Makers

CONNECTIONS = 6
"""As a browser has to one server."""
REFERENCE_SLICES = 200
"""So many CT slices of 512 x 512 the reference implementation's figures are for."""
_BUFFER = 1 << 20
_PATIENCE_S = 20.0
_VIEW = "dicomweb"


@contextmanager
def _nginx(archive: Path, tree: Path) -> Iterator[int]:
    """Run nginx over a tree as `dicomfs nginx-conf` says; give its port."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        raise Failed("nginx is not installed: apt-get install nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="dicomfs-nginx-") as place:
        os.mkdir(f"{place}/temp")
        told = [*drives.DICOMFS, "nginx-conf", "-a", archive, "--port", port, tree]
        text = subprocess.run([str(word) for word in told], check=True, capture_output=True, text=True).stdout
        Path(place, "nginx.conf").write_text(text, encoding="utf-8")
        command = [program, "-p", place, "-c", f"{place}/nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        process = subprocess.Popen(command)
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise Failed("nginx did not start") from None
                    time.sleep(0.01)
            yield port
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


class _Client:
    """One kept connection that reads and drops."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._buffer = memoryview(bytearray(_BUFFER))

    def get(self, path: str) -> int:
        """Fetch a resource; return how long it is."""
        accept = 'multipart/related; type="application/octet-stream"'
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
        buffer, got = self._buffer, 0
        while (end := bytes(buffer[:got]).find(b"\r\n\r\n")) < 0:
            got += self._receive(buffer[got:8192])
        head = bytes(buffer[:end]).lower()
        if not head.startswith(b"http/1.1 200"):
            raise Failed(f"{path}: {head.splitlines()[0].decode()}")
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        left = length - (got - end - 4)
        while left > 0:
            left -= self._receive(buffer[: min(left, _BUFFER)])
        return length

    def _receive(self, buffer: memoryview) -> int:
        count = self._socket.recv_into(buffer)
        if not count:
            raise Failed("the server closed the connection")
        return count

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def _fetch(port: int, paths: Sequence[str]) -> float:
    """Fetch everything over some connections at once."""
    clients = [_Client(port) for _ in range(min(CONNECTIONS, len(paths)))]
    try:

        def part(number: int) -> None:
            for path in paths[number :: len(clients)]:
                clients[number].get(path)

        with ThreadPoolExecutor(len(clients)) as pool:
            return timed(lambda: list(pool.map(part, range(len(clients)))))
    finally:
        for client in clients:
            client.close()


def probe_web(stage: Stage) -> None:
    """Fetch the frames of 500 CT slices through nginx, from drives and from the same files on ext4."""
    slices = min(500, stage.sizes.ct_slices)
    chosen = [
        stage.dicomfs(stage.archive("none"), view=_VIEW),
        stage.dicomfs(stage.archive("fast"), "dicomfs-fast", view=_VIEW),
    ]
    archives = dict(zip(chosen, (stage.archive("none"), stage.archive("fast")), strict=True))
    with mounted(*chosen):
        frames = _frames(archives[chosen[0]], slices)
        exported = _exported(stage, chosen[0], frames)
        with (
            _nginx(archives[chosen[0]], exported) as plain,
            _nginx(archives[chosen[0]], chosen[0].path / "dicomweb") as first,
            _nginx(archives[chosen[1]], chosen[1].path / "dicomweb") as second,
        ):
            size = sum((exported / frame).stat().st_size for frame in frames) / 1e6
            paths = [f"/dicomweb/{frame}" for frame in frames]
            served: dict[Drive | Plain, tuple[str, int]] = {
                Plain(exported): ("ext4", plain),
                chosen[0]: ("dicomfs", first),
                chosen[1]: ("dicomfs-fast", second),
            }

            def fetching(port: int, wanted: Sequence[str], *, again: bool) -> Callable[[], float]:
                def run() -> float:
                    took = _fetch(port, wanted)
                    return _fetch(port, wanted) if again else took

                return run

            for probe, wanted, work in (
                ("web-first", paths[:1], 1.0),
                ("web-all", paths, size),
                ("web-again", paths, size),
            ):
                contestants = {
                    name: place.cold(fetching(port, wanted, again=probe == "web-again"))
                    for place, (name, port) in served.items()
                }
                per = "frames" if probe == "web-first" else "MB"
                compete(stage.results, probe, contestants, stage.rounds, work=work, per=per)
            if machine.DROPS_CACHES:
                contestants = {name: _from_disk(port, paths) for name, port in served.values()}
                compete(stage.results, "web-disk", contestants, stage.rounds, work=size, per="MB")
    stage.clear("web")


def _from_disk(port: int, paths: Sequence[str]) -> Run:
    """Return a run that starts with nothing in memory."""

    def run() -> float:
        machine.drop_caches()
        machine.warm_programs()
        return _fetch(port, paths)

    return run


def _frames(archive: Path, slices: int) -> list[str]:
    """Return the first frame of each instance of the longest series, from `dicomweb` on."""
    with Archive.open(archive) as opened, opened.view() as view:
        study, series = max(
            ((study, series) for study in view.studies() for series in view.series_of(study.key)),
            key=lambda found: found[1].instances,
        )
        above = (
            f"studies/{study.attributes['StudyInstanceUID']}/series/{series.attributes['SeriesInstanceUID']}/instances"
        )
        shown = islice(view.shown_instances(series.key), slices)
        return [f"{above}/{instance.attributes['SOPInstanceUID']}/frames/1" for instance in shown]


def _exported(stage: Stage, drive: Drive, frames: Sequence[str]) -> Path:
    """Write what the drive has of these files to ext4."""
    target = stage.fresh("web")
    for frame in frames:
        (target / frame).parent.mkdir(parents=True)
        shutil.copyfile(drive.path / "dicomweb" / frame, target / frame)
    os.sync()
    return target


def _make_all(archive: Path, cache: Path) -> None:
    """Make the documents of every series and study, and the list of studies."""
    with Archive.open(archive) as opened, opened.view() as view:
        studies = [study.key for study in view.studies()]
        series = [series.key for study in studies for series in view.series_of(study)]
    makers = Makers(archive, cache)
    try:
        for jobs in ([("series", (one,)) for one in series], [("study", (one,)) for one in studies], [("studies", ())]):
            _all_done(makers, jobs)
    finally:
        makers.close()


def _all_done(makers: Makers, jobs: Sequence[Job]) -> None:
    for future in [makers.submit(job) for job in jobs]:
        future.result()


def probe_documents(stage: Stage) -> None:
    """Make all JSON of catalogs of growing size, and the list of studies once more."""
    for instances in stage.sizes.growth[:2]:
        archive = stage.catalog(instances)
        cache = stage.fresh("documents")
        cache.mkdir()
        machine.warm([archive])
        say(f"documents: {instances} instances")
        _note(stage, "documents", f"{instances}", timed(lambda: _make_all(archive, cache)), instances, "instances")  # noqa: B023
        with Archive.open(archive) as opened:
            shutil.rmtree(documents.path(cache, "studies", documents.STUDIES, "").parent, ignore_errors=True)
            anew = timed(lambda: documents.make_studies(opened, cache, ()))  # noqa: B023
        _note(stage, "documents", f"{instances}, list of studies", anew, instances, "instances")
        stage.clear("documents")


def _note(stage: Stage, probe: str, name: str, seconds: float, work: float, per: str) -> None:
    figure = stage.results.add(Figure(probe, name, [seconds], work=work, per=per))
    say(f"  {name:28} {figure.median:9.4f} s")


def probe_reference(stage: Stage) -> None:
    """Import CT slices and make all their documents, as the reference implementation's figures were measured."""
    slices = min(REFERENCE_SLICES, stage.sizes.ct_slices)
    source = stage.fresh("reference-source")
    source.mkdir()
    for path in islice(machine.files_below(stage.ct_study), slices):
        shutil.copyfile(path, source / path.name)
    target = stage.fresh("reference")

    def run() -> float:
        drives.dicomfs("init", target)
        os.sync()

        def work() -> None:
            drives.dicomfs("import", "-a", target, source)
            _make_all(target, target / "cache")

        took = timed(work)
        stage.clear("reference")
        return took

    def once() -> Run:
        return run

    compete(stage.results, "static-dicomweb", {"dicomfs-fast": once()}, stage.rounds, work=slices, per="files")
    stage.clear("reference-source")


def probe_pictures(stage: Stage) -> None:
    """Open the first thumbnail of a drive, and the next ones."""
    archive = stage.archive("fast")
    frames = _frames(archive, 1 + 20)
    first: list[float] = []
    later: list[float] = []
    for _ in range(stage.rounds):
        shutil.rmtree(archive / "cache" / "pictures", ignore_errors=True)
        drive = stage.dicomfs(archive, view=_VIEW)
        with mounted(drive):
            instances = [(drive.path / "dicomweb" / frame).parent.parent for frame in frames]
            _look(instances[0] / "metadata.gz")  # the series' documents are there already
            first.append(_look(instances[0] / "thumbnail"))
            later.append(sum(_look(one / "thumbnail") for one in instances[1:]) / max(1, len(instances) - 1))
    stage.results.add(Figure("thumbnail", "first of a drive", first))
    stage.results.add(Figure("thumbnail", "next", later))


def _look(path: Path) -> float:
    return timed(path.read_bytes)
