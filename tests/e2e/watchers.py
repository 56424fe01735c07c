"""Real Prometheus and Alertmanager processes, and what an operator would ask them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hbagent.demo.datacenter import held_ports, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
ALERTMANAGER, PROMETHEUS = "prometheus-alertmanager", "prometheus"
#: Both are up within a second; a machine that runs other tests beside them takes longer.
START_SECONDS = 30.0


class Server:
    """One process that answers over HTTP."""

    def __init__(self, directory: Path, *command: str, port: int) -> None:
        self._command = command
        self._log = directory / "log"
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again, and wait until it is ready."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        assert wait_until(self.ready, START_SECONDS), self._log.read_text()[-2000:]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON answer to a question."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=20) as answer:
            return json.load(answer)


class Alertmanager(Server):
    """One member; members of a test do not know one another, so each has only what it was posted."""

    def __init__(self, directory: Path, port: int) -> None:
        directory.mkdir()
        super().__init__(
            directory,
            ALERTMANAGER,
            f"--config.file={DEPLOY / 'alertmanager.yml'}",
            f"--storage.path={directory / 'storage'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            port=port,
        )

    def alerts(self) -> dict[tuple[str, str], str]:
        """State of each alert that burns, by name and subject."""
        return {
            (labels["alertname"], labels.get("host") or labels.get("rack") or ""): alert["status"]["state"]
            for alert in self.get("/api/v2/alerts")
            for labels in (alert["labels"],)
        }

    def alert(self, name: str) -> dict[str, Any]:
        """The one alert of a name."""
        (found,) = [alert for alert in self.get("/api/v2/alerts") if alert["labels"]["alertname"] == name]
        return dict(found)


class Prometheus(Server):
    """Scrapes these addresses each second, with the rules that are shipped."""

    def __init__(self, directory: Path, port: int, targets: Sequence[str]) -> None:
        directory.mkdir()
        shown = ", ".join(f'"{target}"' for target in targets)
        config = directory / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{DEPLOY / 'alerts.yml'}]\n"
            f"scrape_configs: [{{job_name: hbagent, static_configs: [{{targets: [{shown}]}}]}}]\n"
        )
        super().__init__(
            directory,
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            port=port,
        )

    def values(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values that an expression has now."""
        answer = self.get("/api/v1/query", query=expression)
        return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]


@contextlib.contextmanager
def alertmanagers(directory: Path, count: int) -> Iterator[list[Alertmanager]]:
    """So many members, ready."""
    with held_ports(count) as ports:
        made = [Alertmanager(directory / f"am{port}", port) for port in ports]
        try:
            for one in made:
                one.start()
            yield made
        finally:
            for one in made:
                one.kill()
