"""Fencing against a real Redfish service: certificate before password, orders confirmed by the state, and no guess about
which machine is meant.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redfish_sim import Redfish, running_redfish

from futago.cluster.fence import Power
from futago.cluster.fence.kinds import open_device
from futago.runtime.faults import Refused, Unknown

pytest.importorskip("sushy_tools")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redfish]:
    with running_redfish(tmp_path_factory.mktemp("redfish")) as found:
        yield found


@pytest.fixture
def bmc(service: Redfish) -> Redfish:
    """The service with its machine on, and nothing ordered yet."""
    service.state.write_text("1\n")
    for left in ("power.orders", "power.stuck"):
        (service.home / left).unlink(missing_ok=True)
    return service


async def test_off_and_on_do_what_they_say(bmc: Redfish) -> None:
    tried = open_device(bmc.settings())
    assert await tried.power() is Power.ON
    await tried.off()
    assert bmc.power == "0" and await tried.power() is Power.OFF
    await tried.off()
    assert bmc.orders == ["power 0"], "a machine that is off needs no shot"
    await tried.on()
    assert bmc.power == "1"


async def test_wrong_password_and_wrong_user_are_refused(bmc: Redfish) -> None:
    wrong = bmc.home / "wrong"
    wrong.write_text("nonsense\n")
    for settings in (bmc.settings(password=wrong), bmc.settings(user="nobody")):
        with pytest.raises(Refused, match="refuses the user or password"):
            await open_device(settings).off()
    assert bmc.orders == []


async def test_certificate_that_nobody_vouches_for_is_refused_with_its_fingerprint(bmc: Redfish) -> None:
    with pytest.raises(Refused, match=f"not to be trusted.*fingerprint: {bmc.fingerprint}"):
        await open_device(bmc.settings(fingerprint="")).power()
    with pytest.raises(Refused, match="another fingerprint than the settings say"):
        await open_device(bmc.settings(fingerprint="00" * 32)).power()


async def test_fingerprint_may_be_written_as_browsers_show_it(bmc: Redfish) -> None:
    pairs = ":".join(bmc.fingerprint.upper()[i : i + 2] for i in range(0, 64, 2))
    assert await open_device(bmc.settings(fingerprint=pairs)).power() is Power.ON


async def test_other_system_than_the_named_one_is_never_touched(bmc: Redfish) -> None:
    with pytest.raises(Refused, match="it has no /redfish/v1/Systems/other"):
        await open_device(bmc.settings(system="/redfish/v1/Systems/other")).off()
    assert bmc.orders == []


async def test_machine_that_does_not_go_off_is_never_reported_as_off(bmc: Redfish) -> None:
    bmc.stick()
    with pytest.raises(Unknown, match="did not confirm off within 5 s; it said that it is on"):
        await open_device(bmc.settings(deadline_s=5.0)).off()
    assert bmc.orders == ["power 0"]


async def test_hanging_service_is_unknown_within_the_deadline(bmc: Redfish) -> None:
    bmc.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Unknown):
            await open_device(bmc.settings(deadline_s=1.5)).off()
        assert time.monotonic() - began < 15
    finally:
        bmc.process.send_signal(signal.SIGCONT)


async def test_dead_service_is_unknown(tmp_path: Path, bmc: Redfish) -> None:
    import msgspec

    with pytest.raises(Unknown, match="does not answer"):
        await open_device(msgspec.structs.replace(bmc.settings(), address="127.255.1.1")).power()


async def test_answer_that_is_no_redfish_is_unknown(bmc: Redfish) -> None:
    """Something else listens there, with a TLS of its own: what it says is not believed."""
    import ssl

    import msgspec

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bmc.home / "redfish.crt", bmc.home / "redfish.key")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(4096)
                secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOn\n")

        threading.Thread(target=answer, daemon=True).start()
        other = bmc.settings(system="/redfish/v1/Systems/1", port=str(server.getsockname()[1]))
        with pytest.raises(Unknown, match="is not JSON"):
            await open_device(msgspec.structs.replace(other, address="127.0.0.1")).power()


async def test_password_is_in_no_argument_and_no_environment(bmc: Redfish, monkeypatch: pytest.MonkeyPatch) -> None:
    from futago.runtime import process

    seen: list[str] = []
    run = process.run

    async def spy(command, **rest):  # type: ignore[no-untyped-def]
        seen.append(" ".join(command))
        return await run(command, **rest)

    monkeypatch.setattr(process, "run", spy)
    await open_device(bmc.settings()).power()
    assert seen and "secret1" not in " ".join(seen) + str(process.ENVIRONMENT)
