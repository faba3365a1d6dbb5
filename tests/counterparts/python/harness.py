"""What the suites in Python need: the gateway and the scripted provider as processes, and tests with names."""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRATCH = Path(os.environ["TOOLGATE_TEST_DIR"])
NODE = os.environ.get("TOOLGATE_NODE", "node")
MODEL = "scripted/gpt-test"
LOGS = SCRATCH / "logs"
PROCESSES = []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


@atexit.register
def end_all():
    for process in PROCESSES:
        if process.poll() is None:
            process.terminate()
    for process in PROCESSES:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def until(what, condition, seconds=20.0):
    """Asks `condition` until it gives something; fails after `seconds`, naming `what`."""
    end = time.monotonic() + seconds
    failure = None
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except Exception as error:
            failure = error
        time.sleep(0.015)
    raise AssertionError(f"{what} did not happen within {seconds} s ({failure})")


def start(name, command, **options):
    """Starts a process whose output goes into a log; gives the process and the log's path."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, **options)
    PROCESSES.append(process)
    return process, log


def first_match(process, log, pattern):
    """The first group of `pattern` in a process's output, once it is there."""

    def look():
        text = log.read_text()
        if process.poll() is not None:
            raise AssertionError(f"it ended: {text[-800:]}")
        return match[1] if (match := re.search(pattern, text, re.MULTILINE)) else None

    return until(f"{pattern} in {log.name}", look, 40)


class Gateway:
    """A gateway in local mode whose provider `scripted` plays the turns that tests write."""

    def __init__(self):
        process, log = start("provider-python", [NODE, str(HERE.parent / "node" / "scripted-provider.mjs")], stdin=subprocess.PIPE)
        self.provider = first_match(process, log, r"^(http://\S+)$")
        directory = Path(tempfile.mkdtemp(prefix="gateway-python-", dir=SCRATCH))
        self.directory = directory
        config = directory / "config.toml"
        config.write_text(
            f'[[providers]]\nname = "scripted"\nbase_url = "{self.provider}"\n'
            'api_key = "provider-key-canary"\nmodels = ["gpt-test"]\n'
        )
        environment = {key: value for key, value in os.environ.items() if not re.search(r"_API_KEY$|^TOOLGATE_", key)}
        self.options = {"env": environment | {"RUST_LOG": "debug"}}
        self.flags = ["--config", config, "--data", directory]
        command = [os.environ["TOOLGATE_BIN"], "serve", "--listen", "127.0.0.1:0", *self.flags]
        process, self.log = start("gateway-python", command, **self.options)
        self.url = "http://127.0.0.1:" + first_match(process, self.log, r"127\.0\.0\.1:(\d{2,5})")
        until("GET /healthz", lambda: urllib.request.urlopen(f"{self.url}/healthz", timeout=2).status == 200)

    def run(self, *arguments):
        """What another command of the program prints, with this gateway's configuration and data."""
        command = [os.environ["TOOLGATE_BIN"], *arguments, *self.flags]
        return subprocess.run(command, **self.options, stdout=subprocess.PIPE, check=True, text=True, timeout=20).stdout

    def seen(self, key):
        """What the provider was sent for a script."""
        return json.load(urllib.request.urlopen(f"{self.provider.removesuffix('/v1')}/seen/{key}"))


def start_python_server(name, script, *arguments):
    """An MCP server of `servers/`; gives its address."""
    command = [sys.executable, "-u", str(HERE / "servers" / script), *arguments]
    return first_match(*start(name, command), r"^LISTENING (\S+)$")


_scripts = 0


def script(*turns):
    """The user message that makes the scripted provider play `turns`, and the key under which it remembers them."""
    global _scripts
    _scripts += 1
    key = f"python-{os.getpid()}-{_scripts}"
    return key, {"role": "user", "content": json.dumps({"key": key, "turns": list(turns)})}


class Suite:
    """Tests that belong to a subject, whose version is written down when all of its tests passed."""

    def __init__(self, name):
        self.name = name
        self.subjects = []
        self.results = []

    def subject(self, title, packages, note, kind="client"):
        subject = {
            "kind": kind, "title": title, "version": " and ".join(version(package) for package in packages),
            "registry": packages[0], "note": note, "passed": 0, "failed": 0,
        }
        self.subjects.append(subject)

        def test(function):
            title = function.__name__.replace("_", " ")
            outcome = []

            def run():
                try:
                    function()
                    outcome.append(None)
                except BaseException as error:
                    outcome.append(f"{type(error).__name__}: {error}")

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(30)
            reason = outcome[0] if outcome else "not finished after 30 s"
            subject["failed" if reason else "passed"] += 1
            self.results.append(not reason)
            if reason:
                print(f"FAIL {self.name}: {title}: {' '.join(reason.split())[:1500]}", flush=True)
            else:
                print(f"PASS {self.name}: {title}", flush=True)
            return function

        return test

    def finish(self, gateway):
        """Writes the versions down and ends the process."""
        directory = SCRATCH / "versions"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{self.name}.json").write_text(json.dumps(self.subjects, indent=1))
        end_all()
        shutil.rmtree(gateway.directory)
        os._exit(0 if self.results and all(self.results) else 1)
