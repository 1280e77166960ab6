"""What is tried in a booted systemd: two members as services, and what a machine does to them.

Runs as root inside the system that boot.sh booted, once at each boot, with Debian's own Python
alone. Each line of the log is one thing that was seen. The first boot ends in a reboot.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TAPESTRY = "/opt/tapestry/tapestry"
MEMBERS = {"ana": "eng", "bo": "deu_1996"}
BOOTED_BEFORE = Path("/var/log/drive.rounds")
STOP_S = 5.0  # docs/operations.md: how long stopping may take
READY_S = 10.0  # after RestartSec
RESTART_S = 5.0  # RestartSec of the node's unit
WATCHDOG_S = 60.0  # WatchdogSec of the node's unit


def see(what: str, good: object = True) -> None:
    """Log one thing that was seen; end with a failure if it is not as it should be."""
    print(f"{'ok  ' if good else 'BAD '} {what}", flush=True)
    if not good:
        print("FAILED", flush=True)
        run("systemctl", "poweroff")
        sys.exit(1)


def run(*command: str, **environ: str) -> str:
    """A command's output; a failure of the command is a failure of the test."""
    done = subprocess.run(
        command, env={**os.environ, "HOME": "/root", **environ}, capture_output=True, text=True
    )
    if done.returncode:
        see(f"{' '.join(command)} exits {done.returncode}: {done.stdout}{done.stderr}", good=False)
    return done.stdout


def property_of(unit: str, name: str) -> str:
    """What systemd knows of a unit."""
    return run("systemctl", "show", "--value", "--property", name, unit).strip()


def pid_of(unit: str) -> int:
    """The main process."""
    return int(property_of(unit, "MainPID"))


def status_of(name: str) -> dict[str, Any]:
    """`tapestry status --json`; {} while there is no daemon."""
    done = subprocess.run(
        [TAPESTRY, "status", "--json"],
        env={**os.environ, "TAPESTRY_SERVICE": name}, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout) if done.returncode in (0, 4) and done.stdout else {}


def wait(what: str, seconds: float, is_so: Callable[[], object]) -> float:
    """Wait until it is so; the seconds that took."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > seconds:
            print(*(json.dumps(status_of(name)) for name in MEMBERS), sep="\n")
            see(f"{what}: not within {seconds:.0f} s", good=False)
        time.sleep(0.2)
    took = time.monotonic() - began
    see(f"{what} ({took:.1f} s)")
    return took


def moves_on(name: str, rounds: int = 2) -> Callable[[], object]:
    """Whether a member has done so many rounds more than now."""
    before = status_of(name).get("round", 0)
    return lambda: status_of(name).get("round", 0) >= before + rounds


def install(name: str) -> None:
    """As docs/operations.md says, from the folder that `init` or `join` made."""
    made, folder = Path("/root") / name, Path("/etc/tapestry") / name
    folder.mkdir(parents=True)
    for file in ("network.toml", "tapestry.toml", "state/key.pem"):
        shutil.copy(made / file, folder)
    (folder / "key.pem").chmod(0o600)
    run(TAPESTRY, "service", "install", name, "--data", f"/srv/{name}")
    run("systemctl", "daemon-reload")


def trust(name: str, other: str) -> None:
    """Spare two members of one owner the probation of strangers."""
    path = Path("/etc/tapestry") / name / "tapestry.toml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("# members = []", f'members = ["{other}"]'), "utf-8")


def found() -> None:
    """Ana founds a network and runs; Bo joins it by her invite and runs; they mix."""
    for name, language in MEMBERS.items():
        run(TAPESTRY, "data", "udhr", "--languages", language, "--out", f"/srv/{name}")
    run(TAPESTRY, "init", "--name", "Ana", "--data", "/srv/ana", TAPESTRY_HOME="/root/ana")
    install("ana")
    see("systemd-analyze verify: " + run("systemd-analyze", "verify", "tapestry@ana.service")
        + "nothing to say")  # fmt: skip
    run("systemctl", "enable", "--now", "tapestry@ana")
    wait("ana is ready and trains", 60, lambda: status_of("ana").get("round", 0) > 1)
    link = run(TAPESTRY, "invite", TAPESTRY_SERVICE="ana").strip()
    run(TAPESTRY, "join", link, "--yes", "--name", "Bo", "--data", "/srv/bo",
        TAPESTRY_HOME="/root/bo")  # fmt: skip
    install("bo")
    trust("bo", status_of("ana")["id"])
    run("systemctl", "enable", "--now", "tapestry@bo")
    wait("bo is ready and trains", 60, lambda: status_of("bo").get("round", 0) > 1)
    trust("ana", status_of("bo")["id"])
    run("systemctl", "restart", "tapestry@ana")
    for name in MEMBERS:
        wait(f"{name} mixes the other", 120, lambda: status_of(name)["mixed"]["authors"])  # noqa: B023


def look_at_walls(name: str) -> None:
    """Which rights the two processes have, and what they see."""
    node, trainer = pid_of(f"tapestry@{name}"), pid_of(f"tapestry-trainer@{name}")
    users = Path("/etc/passwd").read_text("utf-8")
    for unit, pid in (("node", node), ("trainer", trainer)):
        facts = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
            if ":\t" in line
        )
        uid = facts["Uid"].split()[0]
        see(f"{unit}: uid {uid} is nobody's in /etc/passwd",
            61184 <= int(uid) <= 65519 and f":{uid}:" not in users)  # fmt: skip
        see(f"{unit}: no capability, no new privileges, system calls filtered",
            int(facts["CapEff"], 16) == 0 and facts["NoNewPrivs"] == "1"
            and facts["Seccomp"] == "2")  # fmt: skip
    links = run("nsenter", "--target", str(trainer), "--net", "ip", "-oneline", "link")
    see(f"trainer: its only network interface is {links.split()[1]}", links.count("\n") == 1)
    routes = run("nsenter", "--target", str(trainer), "--net", "ip", "route")
    see("trainer: no route anywhere", not routes)
    see("node: cannot list the data", not lists(node, f"/srv/{name}"))
    see("trainer: lists the data", lists(trainer, f"/srv/{name}"))
    see("trainer: has no key", not lists(trainer, f"/run/credentials/tapestry@{name}.service"))


def lists(pid: int, folder: str) -> bool:
    """Whether a process of these rights, in this process's mounts, can list a folder."""
    uid = str(Path(f"/proc/{pid}").stat().st_uid)
    command = ["nsenter", "--target", str(pid), "--mount", "setpriv", "--reuid", uid,
               "--clear-groups", "ls", "-A", folder]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0 and bool(done.stdout.strip())


def look_in_a_browser(name: str) -> None:
    """The page, a unit of its own, answers who has the key, and sees neither data nor store."""
    unit, folder = f"tapestry-page@{name}", Path("/run/tapestry-page") / name
    run("systemctl", "start", unit)
    wait("the page has written its link", 60, (folder / "page.json").exists)
    link = json.loads((folder / "page.json").read_text("utf-8"))["link"]
    base, _, key = link.partition("/#key=")
    wait("the page answers", 30, lambda: answer_of(f"{base}/") == 200)
    asked = {"Content_Type": "application/json", "Origin": base}
    see("the page refuses who has no key", answer_of(f"{base}/api/pause", **asked) == 401)
    asked["X_Tapestry_Key"] = key
    for verb in ("pause", "resume"):
        see(f"the page can {verb}", answer_of(f"{base}/api/{verb}", **asked) == 200)
    token = (folder / "api.token").read_text("ascii").strip()
    models = answer_of(f"{base}/v1/models", Authorization=f"Bearer {token}")
    see("a program of this machine may ask for the models", models == 200)
    told = run(TAPESTRY, "page", TAPESTRY_SERVICE=name)
    see("`tapestry page` tells root the link of the page that runs", told.strip() == link)
    pid = pid_of(unit)
    for place in (f"/srv/{name}", f"/var/lib/tapestry/{name}", f"/var/lib/private/tapestry/{name}",
                  f"/run/credentials/tapestry@{name}.service"):  # fmt: skip
        see(f"page: cannot list {place}", not lists(pid, place))
    run("systemctl", "stop", unit)


def answer_of(url: str, **headers: str) -> int:
    """The status of a request: a POST where it has a content type; 0 while nobody answers."""
    body = b"{}" if "Content_Type" in headers else None
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, body, named), timeout=30) as found:
            return int(found.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def leave_and_come_back(name: str) -> None:
    """A goodbye; the unit then stays down; with its network.toml the member comes back."""
    unit, other = f"tapestry@{name}", other_than(name)
    told = json.loads(run(TAPESTRY, "leave", "--json", TAPESTRY_SERVICE=name))
    see(f"{name} left by entry {told['entry']}, {told['told']} hold it", told["told"] == 1)
    wait("its unit is down", 30, lambda: property_of(unit, "ActiveState") == "inactive")
    wait("the other does not count it any more", 30, lambda: status_of(other)["members"] == 1)
    subprocess.run(["systemctl", "start", unit], capture_output=True)
    wait("started again it refuses", 30, lambda: "has left" in log_of(unit))
    time.sleep(2 * RESTART_S)
    see("and systemd does not try on", property_of(unit, "NRestarts") == "0")
    run(TAPESTRY, "join", f"/etc/tapestry/{name}/network.toml", TAPESTRY_SERVICE=name)
    run("systemctl", "reset-failed", unit)
    run("systemctl", "start", unit)
    wait(f"back, {other} mixes it", 120, lambda: status_of(other)["mixed"]["authors"])


def kill_each(name: str) -> None:
    """SIGKILL the trainer, then the node: both go on by themselves."""
    for unit in (f"tapestry-trainer@{name}", f"tapestry@{name}"):
        pid, on = pid_of(unit), moves_on(name)
        os.kill(pid, signal.SIGKILL)
        wait(f"{unit}: killed, another process", RESTART_S + READY_S,
             lambda: pid_of(unit) not in (0, pid) and status_of(name))  # noqa: B023 # fmt: skip
        wait(f"{unit}: rounds go on", 60, on)


def hang(name: str) -> None:
    """A node that stands still is ended by the watchdog and started anew."""
    unit, on = f"tapestry@{name}", moves_on(name)
    pid = pid_of(unit)
    os.kill(pid, signal.SIGSTOP)
    wait("a stopped node is replaced by the watchdog", WATCHDOG_S * 1.5 + RESTART_S + READY_S,
         lambda: pid_of(unit) not in (0, pid))  # fmt: skip
    see("the journal names the watchdog", "watchdog" in log_of(unit).lower())
    wait("its rounds go on", 60, on)


def reload(name: str) -> None:
    """The log's level changes without a restart."""
    unit, path = f"tapestry@{name}", Path("/etc/tapestry") / name / "tapestry.toml"
    pid, text = pid_of(unit), path.read_text("utf-8")
    path.write_text(re.sub(r'# level = "info"', 'level = "debug"', text), "utf-8")
    run("systemctl", "reload", unit)
    wait("the node says that it has reloaded", 10, lambda: "reloaded" in log_of(unit))
    run("systemctl", "restart", f"tapestry@{other_than(name)}")  # its leaving is debug
    debug = ("journalctl", "--priority", "debug..debug", "-o", "cat", "-u", unit)
    wait("debug lines reach the journal, as such", 30, lambda: "tapestry" in run(*debug))
    see("by the same process", pid_of(unit) == pid)
    path.write_text(text, "utf-8")
    run("systemctl", "reload", unit)


def log_of(unit: str) -> str:
    """What a unit wrote."""
    return run("journalctl", "-o", "cat", "-u", unit)


def other_than(name: str) -> str:
    """The other member."""
    return next(each for each in MEMBERS if each != name)


def stop(name: str) -> None:
    """Stopping takes both along, leaves no process, and starting goes on where it was."""
    before = status_of(name)["round"]
    began = time.monotonic()
    run("systemctl", "stop", f"tapestry@{name}", f"tapestry-trainer@{name}")
    took = time.monotonic() - began
    see(f"stopped within {took:.1f} s (bound {STOP_S:.0f})", took <= STOP_S)
    for unit in (f"tapestry@{name}", f"tapestry-trainer@{name}"):
        result = property_of(unit, "Result"), property_of(unit, "ActiveState")
        see(f"{unit}: {result}", result == ("success", "inactive"))
    run("systemctl", "start", f"tapestry@{name}")
    wait("started: beyond its round", 60, lambda: status_of(name).get("round", 0) > before)


def live_as_a_user(user: str = "cy") -> None:
    """A member of an ordinary account, run by its own systemd while nobody is logged in."""
    run("useradd", "--create-home", user)
    uid = run("id", "--user", user).strip()

    def mine(*command: str) -> str:
        return run("runuser", "--user", user, "--", "env", f"HOME=/home/{user}",
                   f"XDG_RUNTIME_DIR=/run/user/{uid}", *command)  # fmt: skip

    def status() -> dict[str, Any]:
        done = subprocess.run(
            ["runuser", "--user", user, "--", "env", f"HOME=/home/{user}", TAPESTRY, "status",
             "--json"], capture_output=True, text=True,
        )  # fmt: skip
        return json.loads(done.stdout) if done.returncode in (0, 4) and done.stdout else {}

    mine(TAPESTRY, "init", "--name", "Cy")
    mine(TAPESTRY, "service", "install", "--user")
    run("loginctl", "enable-linger", user)
    wait("cy's own systemd is up", 30, Path(f"/run/user/{uid}/systemd").exists)
    mine("systemctl", "--user", "daemon-reload")
    mine("systemctl", "--user", "enable", "--now", "tapestry")
    wait("cy is ready and trains", 90, lambda: status().get("round", 0) > 1)
    see(f"cy's trainer: {status()['isolation']}", status()["trainer_isolated"])
    pid = int(mine("systemctl", "--user", "show", "--value", "--property", "MainPID", "tapestry"))
    before = status()["round"]
    os.kill(pid, signal.SIGKILL)
    wait("killed, it goes on", 90, lambda: status().get("round", 0) > before)
    began = time.monotonic()
    mine("systemctl", "--user", "stop", "tapestry")
    took = time.monotonic() - began
    see(f"stopped within {took:.1f} s (bound {STOP_S:.0f})", took <= STOP_S)


def first_boot() -> None:
    """All but the reboot."""
    found()
    for name in MEMBERS:
        look_at_walls(name)
    look_in_a_browser("ana")
    kill_each("bo")
    hang("ana")
    reload("ana")
    stop("bo")
    live_as_a_user()
    for name in MEMBERS:
        wait(f"{name} mixes the other", 120, lambda: status_of(name)["mixed"]["authors"])  # noqa: B023
    BOOTED_BEFORE.write_text(json.dumps({n: status_of(n)["round"] for n in MEMBERS}), "utf-8")
    see("reboot")
    run("systemctl", "reboot")


def second_boot() -> None:
    """Both members go on by themselves."""
    rounds = json.loads(BOOTED_BEFORE.read_text("utf-8"))
    for name, before in rounds.items():
        wait(f"after the reboot {name} goes on from round {before}", 90,
             lambda: status_of(name).get("round", 0) > before)  # noqa: B023 # fmt: skip
        wait(f"{name} mixes the other", 120, lambda: status_of(name)["mixed"]["authors"])  # noqa: B023
        run(TAPESTRY, "audit", "--verify", TAPESTRY_SERVICE=name)
        see(f"{name}: the audit log's chain holds")
    leave_and_come_back("bo")
    print("PASSED", flush=True)
    run("systemctl", "poweroff")


if __name__ == "__main__":
    second_boot() if BOOTED_BEFORE.exists() else first_boot()
