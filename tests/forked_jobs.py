"""Runs the jobs of a graph as forks of one process that has imported PyTorch, whose start is most of a tiny job.

It has imported what a project's code has of settings and networks, too, as it was when this process started.

`forked_jobs(folder)` makes `folder/bin/python`, which hands what it is called with to that process (Linux).
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

PRELOADED = ("pandas", "pydantic", "typer")
NETWORKS = ("torch", "torchvision.transforms.v2", "timm", "lightning_fabric", "scipy.ndimage")
"""What jobs import from elsewhere; without h5py, which looks at the environment when it is imported."""
OURS = ("settings", "models")
"""The project's own packages without it, the first without networks, too."""

CLIENT = f"""#!{sys.executable} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.path.dirname(__file__) + "/jobs")
    job = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [job.encode()], [1, 2])
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
    server.recv(1)  # until the job's process is gone
sys.exit(code[0] if code else 1)
"""


@contextlib.contextmanager
def forked_jobs(folder: Path, *, networks: bool = True) -> Iterator[Path]:
    """The path of a Python that runs `-m selftrain` in a fork, as long as this block lasts.

    Without `networks`, jobs that need PyTorch import it.
    """
    python = folder / "bin/python"
    python.parent.mkdir()
    python.write_text(CLIENT)
    python.chmod(0o755)
    command = [sys.executable, __file__, python.with_name("jobs"), *(NETWORKS if networks else ())]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # each of the project's modules is compiled once
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield python


def serve(address: str, *networks: str) -> None:
    """Fork for each job that is sent, until standard input ends, as it does with who started this."""
    package = Path(address).parents[1] / "src/selftrain"
    sys.path.insert(0, str(package.parent))
    files = [file for name in (OURS if networks else OURS[:1]) for file in (package / name).rglob("*.py")]
    ours = [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files]
    for name in (*PRELOADED, *networks, *ours):
        importlib.import_module(name)
    assert "h5py" not in sys.modules
    del sys.path[0]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks: the client hears of their end
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                run(client)
                return
            client.close()


def run(client: socket.socket) -> None:
    """Become the job's process, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told, (out, err), *_ = socket.recv_fds(client, 1 << 20, 2)
    while part := client.recv(1 << 20):
        told += part
    (option, module, *arguments), folder, environment = json.loads(told)
    assert option == "-m"
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = ["", *environment["PYTHONPATH"].split(os.pathsep)]
    sys.argv = [module, *arguments]
    code: object = 1
    try:
        importlib.import_module(f"{module}.cli").main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    number = code if isinstance(code, int) else 1 if code else 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    client.send(bytes([number]))
    # Taking the interpreter down would copy every page that the fork shares, for two seconds.
    os._exit(number)


if __name__ == "__main__":
    serve(*sys.argv[1:])
