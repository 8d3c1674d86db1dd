"""POSTs to names that lie, over real sockets: what must not be reached is there, and is not reached."""

import asyncio
import socket
import ssl
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import pytest
import trustme

from app.outbound.connection import AddressRefusedError, Guard
from app.outbound.post import KEPT_BYTES, PostAnswer, Poster, PostFailedError
from tests.unit.app.client.scripted_server import DROP, Reply, ScriptedServer, running

REFUSED = "does not resolve, or not to public addresses only"
RECEIVER, INTERNAL = "127.0.0.2", "127.0.0.1"
"""Two hosts on one machine: the receiver's network is allowed in these tests, the other one is not."""
ALLOWED = (ip_network(f"{RECEIVER}/32"),)


class Names:
    """A resolver: each question about a name has the next answer; the last one again and again."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name: list(each) for name, each in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        name = host.partition(".")[0]
        self.asked.append(name)
        if name not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        left = self.answers[name]
        return left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def receiver() -> Iterator[ScriptedServer]:
    with running(RECEIVER) as server:
        server.on("POST", "/.*", Reply(204))
        yield server


@pytest.fixture
def internal(receiver: ScriptedServer) -> Iterator[ScriptedServer]:
    """What an attacker wants to reach: on the same port as the receiver."""
    with running(INTERNAL, _port(receiver)) as server:
        server.on("POST", "/.*", Reply(200, b"the crown jewels"))
        yield server


def _port(server: ScriptedServer) -> int:
    return int(server.url.rpartition(":")[2])


def _post(poster: Poster, url: str, body: bytes = b"{}") -> PostAnswer:
    return asyncio.run(poster.post(url, {"Content-Type": "application/json"}, body))


def _poster(names: Names, *, timeout: float = 10, tls: ssl.SSLContext | None = None) -> Poster:
    return Poster(Guard(ALLOWED, names), timeout, tls)


class TestNames:
    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param([INTERNAL], id="loopback"),
            pytest.param(["::1"], id="loopback, IPv6"),
            pytest.param(["::ffff:127.0.0.1"], id="loopback, mapped"),
            pytest.param(["10.0.0.7"], id="private"),
            pytest.param(["169.254.169.254"], id="metadata"),
            pytest.param([RECEIVER, INTERNAL], id="one of two"),
            pytest.param([], id="no address"),
        ],
    )
    def test_that_lead_inside_are_refused(
        self, receiver: ScriptedServer, internal: ScriptedServer, answer: list[str]
    ) -> None:
        with pytest.raises(PostFailedError, match=REFUSED):
            _post(_poster(Names(hook=[answer])), f"http://hook.example:{_port(receiver)}/")
        assert receiver.requests == internal.requests == []

    def test_that_do_not_resolve_are_told_in_the_same_words(self) -> None:
        with pytest.raises(PostFailedError, match=REFUSED):
            _post(_poster(Names()), "http://nowhere.example/")

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "[::1]", "0"])
    def test_of_this_machine_are_refused_by_the_system_s_own_resolver(
        self, internal: ScriptedServer, host: str
    ) -> None:
        with pytest.raises(PostFailedError, match=REFUSED):
            _post(Poster(Guard(ALLOWED), 10), f"http://{host}:{_port(internal)}/")
        assert internal.requests == []

    def test_the_address_that_was_checked_is_connected_to(
        self, receiver: ScriptedServer, internal: ScriptedServer
    ) -> None:
        """DNS rebinding within one request: who resolves a second time is led inside."""
        names = Names(rebind=[[RECEIVER], [INTERNAL]])
        answer = _post(_poster(names), f"http://rebind.example:{_port(receiver)}/hook", b'{"a":1}')
        assert answer.status_code == 204
        assert names.asked == ["rebind"], "once, and never again for this connection"
        (request,) = receiver.requests
        assert request.headers["Host"] == f"rebind.example:{_port(receiver)}"
        assert (request.path, request.body) == ("/hook", b'{"a":1}')
        assert internal.requests == []

    def test_a_name_that_turns_inside_is_refused_the_next_time(
        self, receiver: ScriptedServer, internal: ScriptedServer
    ) -> None:
        """DNS rebinding between two requests: no connection is kept, and none is made unchecked."""
        poster = _poster(Names(rebind=[[RECEIVER], [INTERNAL]]))
        url = f"http://rebind.example:{_port(receiver)}/"
        assert _post(poster, url).status_code == 204
        with pytest.raises(PostFailedError, match=REFUSED):
            _post(poster, url)
        assert internal.requests == []

    def test_from_the_internet_to_private_between_check_and_connection(
        self, internal: ScriptedServer
    ) -> None:
        names = Names(rebind=[["8.8.8.8"], [INTERNAL]])
        guard = Guard(ALLOWED, names)
        assert guard.check("rebind.example", 443, is_encrypted=True) == ["8.8.8.8"], "when it is created"
        with pytest.raises(PostFailedError, match=REFUSED):
            _post(Poster(guard, 10), f"https://rebind.example:{_port(internal)}/")
        assert internal.requests == []

    def test_plain_http_goes_to_allowed_networks_only(self) -> None:
        guard = Guard(ALLOWED, Names(hook=[["8.8.8.8"]]))
        assert guard.check("hook.example", 443, is_encrypted=True)
        with pytest.raises(AddressRefusedError):
            guard.check("hook.example", 80, is_encrypted=False)

    def test_the_next_address_is_taken_where_one_does_not_answer(self, receiver: ScriptedServer) -> None:
        names = Names(two=[["127.0.0.3", RECEIVER]])
        guard = Guard((ip_network("127.0.0.2/31"),), names)
        assert _post(Poster(guard, 10), f"http://two.example:{_port(receiver)}/").status_code == 204


class TestAnswers:
    def test_a_redirect_is_an_answer_and_is_not_followed(
        self, receiver: ScriptedServer, internal: ScriptedServer
    ) -> None:
        receiver.on("POST", "/hook", Reply(307, b"", {"Location": f"{internal.url}/secret"}))
        answer = _post(_poster(Names(hook=[[RECEIVER]])), f"http://hook.example:{_port(receiver)}/hook")
        assert answer.status_code == 307
        assert [len(receiver.requests), len(internal.requests)] == [1, 0]

    def test_no_proxy_of_the_environment_is_asked(
        self, receiver: ScriptedServer, internal: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, internal.url)
        url = f"http://hook.example:{_port(receiver)}/"
        assert _post(_poster(Names(hook=[[RECEIVER]])), url).status_code == 204
        assert internal.requests == []

    def test_of_a_long_one_the_beginning_is_kept_and_no_nul(self, receiver: ScriptedServer) -> None:
        receiver.on("POST", "/", Reply(200, b"a\0" + b"b" * 10_000_000))
        text = _post(_poster(Names(hook=[[RECEIVER]])), f"http://hook.example:{_port(receiver)}/").text
        assert text == "a\N{REPLACEMENT CHARACTER}" + "b" * (KEPT_BYTES - 2)

    def test_that_never_comes_is_waited_for_no_longer_than_that(self) -> None:
        with socket.create_server((RECEIVER, 0)) as silent:
            url = f"http://hook.example:{silent.getsockname()[1]}/"
            with pytest.raises(PostFailedError, match=r"no complete answer within 0\.2 s"):
                _post(_poster(Names(hook=[[RECEIVER]]), timeout=0.2), url)

    def test_that_breaks_off_is_a_failure(self, receiver: ScriptedServer) -> None:
        receiver.on("POST", "/", DROP)
        with pytest.raises(PostFailedError, match="the connection failed"):
            _post(_poster(Names(hook=[[RECEIVER]])), f"http://hook.example:{_port(receiver)}/")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class TestTls:
    @pytest.fixture
    def trusting(self, authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    def _server(self, authority: trustme.CA, name: str, asked: list[str | None]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        context.sni_callback = lambda _socket, server_name, _context: asked.append(server_name)
        return context

    def test_asks_for_the_name_and_not_for_the_address(
        self, authority: trustme.CA, trusting: ssl.SSLContext
    ) -> None:
        asked: list[str | None] = []
        with running(RECEIVER, tls=self._server(authority, "hook.example", asked)) as server:
            server.on("POST", "/", Reply(200))
            poster = _poster(Names(hook=[[RECEIVER]]), tls=trusting)
            assert _post(poster, f"https://hook.example:{_port(server)}/").status_code == 200
        assert asked == ["hook.example"]

    def test_a_certificate_of_another_name_is_refused(
        self, authority: trustme.CA, trusting: ssl.SSLContext
    ) -> None:
        with running(RECEIVER, tls=self._server(authority, "other.example", [])) as server:
            poster = _poster(Names(hook=[[RECEIVER]]), tls=trusting)
            with pytest.raises(PostFailedError, match="Hostname mismatch"):
                _post(poster, f"https://hook.example:{_port(server)}/")
        assert server.requests == []

    def test_a_certificate_that_nobody_knows_is_refused(self, authority: trustme.CA) -> None:
        poster = _poster(Names(hook=[[RECEIVER]]))
        with (
            running(RECEIVER, tls=self._server(authority, "hook.example", [])) as server,
            pytest.raises(PostFailedError, match="certificate verify failed"),
        ):
            _post(poster, f"https://hook.example:{_port(server)}/")
        assert server.requests == []
