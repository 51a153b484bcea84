"""Fleets end their servers only after the last answer, whatever the server does when it is told to end."""

import itertools
import threading
from pathlib import Path

from rehearsal.sagemaker_fleets import MAX_COPIES, Fleet, ModelServer, Traffic
from rehearsal.settings import Image
from tests.support.stack import REPOSITORY, wait_for

#: Answers /invocations only when a file exists, and ends at once on SIGTERM.
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Handler(BaseHTTPRequestHandler):
    def answer(self):
        if self.path == "/invocations":
            Path(sys.argv[2], "asked").touch()
            while not Path(sys.argv[2], "go").exists():
                time.sleep(0.01)
        self.send_response(200)
        self.end_headers()
    do_GET = do_POST = answer

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def fleet(folder: Path, config: str, count: int = 1) -> Fleet:
    """Start a fleet of servers in folders ``CONFIG-0``, ``CONFIG-1``, … ."""
    image = Image(("python", "-c", SERVER, "{port}", "{model}"), {})
    numbers = itertools.count()

    def start() -> ModelServer:
        return ModelServer(folder / f"{config}-{next(numbers)}", image, REPOSITORY, None, {})

    started = Fleet(config, {"VariantName": "v"}, {}, {}, start, count)
    assert started.wait_until_healthy() is None
    return started


def test_a_request_under_way_is_answered_by_the_fleet_that_is_replaced(tmp_path: Path) -> None:
    old, new = fleet(tmp_path, "old"), fleet(tmp_path, "new")
    traffic = Traffic(old)
    answers: list[int | str] = []
    taken, server = traffic.take()
    assert taken is old

    def ask() -> None:
        try:
            answers.append(server.request("POST", "/invocations", b"", {})[0])
        except OSError as error:
            answers.append(repr(error))
        finally:
            old.put_back(server)

    request = threading.Thread(target=ask)
    request.start()
    wait_for((tmp_path / "old-0" / "asked").exists)
    closing = [threading.Thread(target=each.close) for each in traffic.replace(new, None)]
    for thread in closing:
        thread.start()
    assert traffic.take()[0] is new
    threading.Timer(0.5, (tmp_path / "old-0" / "go").touch).start()
    for thread in [request, *closing]:
        thread.join()
    assert answers == [200]
    assert server.process.poll() is not None
    new.put_back(new.take())
    for each in new._servers:
        each.close()


def test_scaling_uses_each_instance_and_ends_the_surplus(tmp_path: Path) -> None:
    scaled = fleet(tmp_path, "scaled")
    assert scaled.resize(2) is None
    first, second = scaled.take(), scaled.take()
    assert first is not second, "the one with fewer requests is asked"
    scaled.put_back(first)
    scaled.put_back(second)
    assert scaled.resize(1) is None and scaled.count == 1
    assert [each.process.poll() is None for each in (first, second)].count(True) == 1
    scaled.close()


def test_a_server_that_ended_is_replaced(tmp_path: Path) -> None:
    one = fleet(tmp_path, "one")
    server = one.take()
    server.process.kill()
    server.process.wait()
    one.put_back(server)
    assert one.wait_until_healthy() is None
    again = one.take()
    assert again is not server and again.request("GET", "/ping", b"", {})[0] == 200
    one.put_back(again)
    one.close()


def test_an_incoming_fleet_gets_its_share(tmp_path: Path) -> None:
    old, new = fleet(tmp_path, "old"), fleet(tmp_path, "new")
    traffic = Traffic(old)
    for share, most in ((0.0, 0), (0.25, 250), (1.0, 500)):
        traffic.shift(new, share)
        taken = [traffic.take() for _ in range(500)]
        for each, server in taken:
            each.put_back(server)
        got = sum(each is new for each, _ in taken)
        assert share * 500 - 60 < got <= most
    for each in (old, new):
        each.close()


def test_a_shadow_that_does_not_keep_up_gets_no_more_copies(tmp_path: Path) -> None:
    served, shadow = fleet(tmp_path, "served"), fleet(tmp_path, "shadow")
    traffic = Traffic(served, shadow)
    taken = [traffic.take_shadow() for _ in range(MAX_COPIES)]
    assert all(taken) and traffic.take_shadow() is None
    shadow.put_back(shadow._servers[0])
    assert traffic.take_shadow()
    for each in shadow._servers:
        each.close()
    shadow._servers.clear()
    assert traffic.take_shadow() is None
    assert traffic.take()[0] is served, "requests are answered without it"
    for each in served._servers:
        each.close()
