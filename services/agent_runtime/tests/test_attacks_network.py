"""Attacks on what HTTP tools may reach and take in: on real sockets, each refused or bounded, and told why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from network_traps import Answers, bench_of, listening, refused
from tool_bench import SECRET

from paracle_agent_runtime.tools.http import CheckedResolver, acting_for
from paracle_agent_runtime.tools.permissions import Grants
from paracle_domain.errors import Forbidden
from paracle_domain.tool.spec import Permissions

# ── where to ─────────────────────────────────────────────────────────────────────────────────────────────────────────

INWARD = [
    "127.0.0.1",
    "127.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "017700000001",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[::1%25lo]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "ⓛocalhost",
]


@pytest.mark.parametrize("host", INWARD)
@pytest.mark.parametrize("function", ["http_request", "web_page"])
async def test_no_notation_of_an_inward_address_is_connected_to(tmp_path: Path, host: str, function: str):
    async with listening() as trap, bench_of(tmp_path) as bench:
        url = f"http://{host}:{trap.port}/"
        hosts = [host, host.lower(), host.strip("[]"), "127.0.0.1", "localhost", "::1", "0.0.0.0"]  # a careless list
        end = await bench.granted(function, {"url": url}, {"hosts": hosts})
        message = refused(end, "forbidden", "input_schema_mismatch", "tool_unavailable")
        assert host.strip("[].").lower() in message.lower() or "may not connect" in message
        assert trap.heard == []


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "fe80::1", "224.0.0.1", "0.0.0.0", "::"]
)
async def test_names_in_private_networks_lead_to_no_metadata_service(tmp_path: Path, address: str):
    async with bench_of(tmp_path, Answers([address])) as bench:
        permissions = {"hosts": ["intranet.example"], "private_networks": True}
        end = await bench.granted("http_request", {"url": "http://intranet.example/latest/meta-data"}, permissions)
        assert f"{address} is link-local, multicast" in refused(end)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example@127.0.0.1:{port}/",
        "http://api.example:80@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}#@api.example/",
        "http://127.0.0.1:{port}?@api.example/",
        "http://127.0.0.1:{port}/@api.example/",
        "http://api.example\\@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@api.example/",
        "http://127.0.0.1:{port}\\.api.example/",
        "http://api.example%2f@127.0.0.1:{port}/",
        "http://api.example%00@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}%2f.api.example/",
        "http:/127.0.0.1:{port}/",
        "http:///127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://api.example\t@127.0.0.1:{port}/",
        "http://api.example\n.127.0.0.1:{port}/",
        " http://127.0.0.1:{port}/",
        "http://api.example:{port}:80/",
        "http://api.example.evil.example:{port}/",
        "http://evil.example:{port}/api.example",
        "http://аpi.example:{port}/",
        "http://xn--pi-7kc.example:{port}/",
        "http://api.examp1e:{port}/",
        "http://api\u200b.example:{port}/",
        "http://*:{port}/",
        "https://127.0.0.1:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/_GET",
        "ftp://api.example/",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "unix:///var/run/docker.sock",
    ],
)
async def test_no_spelling_makes_one_host_look_like_another(tmp_path: Path, url: str):
    async with listening() as trap, bench_of(tmp_path, Answers(["127.0.0.1"])) as bench:
        end = await bench.granted("http_request", {"url": url.format(port=trap.port)}, {"hosts": ["api.example"]})
        refused(end, "forbidden", "input_schema_mismatch")
        assert trap.heard == []


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{other}/",
        "//127.0.0.1:{other}/",
        "http://localhost:{other}/",
        "http://[::1]:{other}/",
        "http://2130706433:{other}/",
        "http://0x7f.1:{other}/",
        "http://user:word@127.0.0.1:{other}/",
        "http://127.0.0.1:{own}@127.0.0.1:{other}/",
        "\\\\127.0.0.1:{other}/",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{other}/",
        "http://evil.example:{other}/",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
@pytest.mark.parametrize("code", [302, 307])
async def test_redirects_leave_no_granted_host(tmp_path: Path, location: str, code: int):
    async with listening() as trap, bench_of(tmp_path) as bench:

        async def onward(_: bytes, writer: asyncio.StreamWriter) -> None:
            to = location.format(other=trap.port, own=first.port)
            writer.write(f"HTTP/1.1 {code} Go\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()

        async with listening(onward) as first:
            permissions = {"hosts": [f"127.0.0.1:{first.port}"], "private_networks": True}
            end = await bench.granted("web_page", {"url": f"http://127.0.0.1:{first.port}/"}, permissions)
            refused(end, "forbidden", "tool_failed")
            assert trap.heard == []


async def test_a_name_is_asked_for_once_and_its_checked_address_connected_to(tmp_path: Path):
    async with listening() as good, bench_of(tmp_path, Answers(["127.0.0.1"], ["127.0.0.2"])) as bench:
        permissions = {"hosts": ["rebind.example"], "private_networks": True}
        end = await bench.granted("web_page", {"url": f"http://rebind.example:{good.port}/"}, permissions)
        assert isinstance(end.output, dict)
        assert (end.output["text"], len(good.heard)) == ("hello", 1)


@pytest.mark.parametrize("second", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:10.0.0.1"])
async def test_a_name_that_is_rebound_is_judged_again(tmp_path: Path, second: str):
    grants = Grants("t", Permissions(hosts=("rebind.example",)), tmp_path, {})
    resolver = CheckedResolver(Answers(["93.184.216.34"], [second]))
    with acting_for(grants):
        assert [found["host"] for found in await resolver.resolve("rebind.example", 80)] == ["93.184.216.34"]
        with pytest.raises(Forbidden, match="not a public address"):
            await resolver.resolve("rebind.example", 80)


@pytest.mark.parametrize("answers", [["93.184.216.34", "127.0.0.1"], ["::1", "2606:4700::1111"]])
async def test_one_inward_address_among_public_ones_is_enough_to_refuse(tmp_path: Path, answers: list[str]):
    async with listening() as trap, bench_of(tmp_path, Answers(answers)) as bench:
        end = await bench.granted("web_page", {"url": f"http://both.example:{trap.port}/"}, {"hosts": ["both.example"]})
        assert "is not a public address" in refused(end)
        assert trap.heard == []


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "internal.example"},
        {"host": "internal.example"},
        {"Content-Length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "upgrade"},
        {"Proxy-Authorization": "x"},
        {"X-A\r\nHost": "internal.example"},
        {"X-A": "x\r\nHost: internal.example"},
        {"X-A": "x\n\nGET / HTTP/1.1"},
        {"X-A": "x\x00"},
        {"X A": "x"},
        {"": "x"},
        {"X-A:": "x"},
    ],
)
async def test_headers_smuggle_no_second_request(tmp_path: Path, headers: dict[str, str]):
    async with listening() as trap, bench_of(tmp_path) as bench:
        permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
        url = f"http://127.0.0.1:{trap.port}/"
        refused(
            await bench.granted("http_request", {"url": url, "headers": headers}, permissions),
            "forbidden",
            "input_schema_mismatch",
        )
        assert trap.heard == []


@pytest.mark.parametrize("value", ["x\r\nHost: evil", "x\nX-B: 1", "\x00", "x\x7f"])
async def test_arguments_of_http_tools_break_no_header(tmp_path: Path, value: str):
    async with listening() as trap, bench_of(tmp_path) as bench:
        backend = {"type": "http", "url": f"http://127.0.0.1:{trap.port}/", "header_arguments": {"X-A": "a"}}
        permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
        message = refused(
            await bench.call({"a": value}, backend=backend, permissions=permissions), "input_schema_mismatch"
        )
        assert message.startswith("header X-A would hold a line break")
        assert trap.heard == []


@pytest.mark.parametrize(
    "value",
    ["../admin", "..%2fadmin", "a/../../admin", "x?admin=1", "x#", "x HTTP/1.1\r\nHost: evil", "@evil.example", "x\\y"],
)
async def test_arguments_stay_in_their_place_of_a_url(tmp_path: Path, value: str):
    async with listening() as trap, bench_of(tmp_path) as bench:
        backend = {"type": "http", "method": "GET", "url": f"http://127.0.0.1:{trap.port}/users/{{id}}/name"}
        permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
        end = await bench.call({"id": value}, backend=backend, permissions=permissions)
        assert end.error is None
        path = trap.heard[0].split(b" ")[1]
        assert path.startswith(b"/users/")
        assert path.endswith(b"/name")
        assert path.count(b"/") == 3
        assert not {b"?", b"#", b"\r"} & {path[i : i + 1] for i in range(len(path))}


async def test_a_place_for_the_host_reaches_granted_hosts_only(tmp_path: Path):
    async with listening() as trap, bench_of(tmp_path) as bench:
        backend = {"type": "http", "method": "GET", "url": f"http://{{host}}:{trap.port}/"}
        for host in ("127.0.0.1", "evil.example", "api.example@127.0.0.1", "api.example#"):
            end = await bench.call({"host": host}, backend=backend, permissions={"hosts": ["api.example"]})
            refused(end, "forbidden", "tool_failed")
        assert trap.heard == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_tool_without_effect_changes_nothing(tmp_path: Path, method: str):
    async with listening() as trap, bench_of(tmp_path) as bench:
        permissions = {"hosts": ["127.0.0.1"], "private_networks": True}
        url = f"http://127.0.0.1:{trap.port}/"
        end = await bench.granted("http_request", {"url": url, "method": method}, permissions)
        assert "effect: none" in refused(end)
        assert trap.heard == []


async def test_secrets_are_filled_in_where_the_manifest_says_and_nowhere_else(tmp_path: Path):
    async with listening() as trap, bench_of(tmp_path) as bench:
        permissions = {"hosts": ["127.0.0.1"], "private_networks": True, "secrets": ["KEY"]}
        arguments = {
            "url": f"http://127.0.0.1:{trap.port}/${{KEY}}",
            "headers": {"X-A": "${KEY}", "authorization": "mine"},
        }
        fixed = {"Authorization": "Bearer ${KEY}"}
        end = await bench.granted("http_request", arguments, permissions, headers=fixed)
        assert end.error is None
        [head] = trap.heard
        assert head.count(SECRET.encode()) == 1
        assert f"Authorization: Bearer {SECRET}".encode() in head
        assert b"mine" not in head
