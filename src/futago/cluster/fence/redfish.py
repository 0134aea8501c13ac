"""A service processor by Redfish: HTTPS, one JSON document a question. Runs as a helper (helper.py); the controller only
sees `RedfishDriver`.

Each question is its own conversation with Basic authentication, which every Redfish service must offer; sessions are not
used, so none is left behind on a processor that has few. The password is sent only after the certificate is believed:
signed by an authority that this machine knows, or with exactly the fingerprint in the settings, since most processors
sign their own.

Measured against sushy-emulator on two busy cores, the start of each helper included: status 0.25 s, off and confirmed 0.7 s.

Source: DMTF DSP0266 (protocol, with Basic authentication), DSP0268 (ComputerSystem, PowerState, Reset).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
import sys
from typing import Any

from futago.cluster.fence import Power
from futago.cluster.fence.command import password
from futago.cluster.fence.helper import HelperDriver, Request, serve
from futago.runtime.faults import Refused, Unknown
from futago.setup.fences import FenceDevice as FenceSettings

SYSTEMS = "/redfish/v1/Systems"
ANSWER_BYTES_MAX = 1 << 20
SPARE_S = 0.3  # we give up this much before we would be ended, to say why
_STATES = {"On": Power.ON, "Off": Power.OFF}  # PoweringOn, PoweringOff, Paused: in between
_RESET = {"off": "ForceOff", "on": "On"}

Document = dict[str, Any]
"""A Redfish resource: its shape is the service's; only the few members named below are read."""


class RedfishDriver(HelperDriver):
    """One system on one Redfish service.

    Options: `system` (its path, such as /redfish/v1/Systems/1; needed if the service has several), `port` (443),
    `fingerprint` (SHA-256 of the certificate, hex digits, for one that no known authority has signed).
    """

    def __init__(self, settings: FenceSettings) -> None:
        super().__init__("futago.cluster.fence.redfish", settings)


class Service:
    """A conversation with one service. Raises Refused or Unknown everywhere."""

    def __init__(self, device: FenceSettings, *, timeout_s: float) -> None:
        self._device = device
        self._pin = device.options.get("fingerprint", "").replace(":", "").lower()
        account = f"{device.user}:{password(device.password_file)}".encode()
        self._headers = {"Authorization": "Basic " + base64.b64encode(account).decode(), "Accept": "application/json"}
        context = ssl.create_default_context()
        if self._pin:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        port = int(device.options.get("port", "443"))
        self._connection = http.client.HTTPSConnection(device.address, port, timeout=timeout_s, context=context)

    def connect(self) -> None:
        """Connect, and believe in the other end."""
        try:
            self._connection.connect()
        except ssl.SSLCertVerificationError as e:
            raise Refused(
                f"its certificate is not to be trusted ({e.verify_message}); if the device's own certificate has this "
                f"fingerprint, name it as the option fingerprint: {self._unverified_fingerprint()}"
            ) from e
        except OSError as e:
            raise Unknown(f"it does not answer: {e}") from e
        if self._pin:
            sock = self._connection.sock
            found = _fingerprint(sock.getpeercert(binary_form=True))
            if found != self._pin:
                raise Refused(f"its certificate has another fingerprint than the settings say: {found}")

    def _unverified_fingerprint(self) -> str:
        """Return what the certificate's fingerprint is, for people; nothing is sent."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        probe = http.client.HTTPSConnection(
            self._connection.host, self._connection.port, timeout=self._connection.timeout, context=context
        )
        try:
            probe.connect()
            return _fingerprint(probe.sock.getpeercert(binary_form=True))
        except OSError as e:
            return f"unknown, {e}"
        finally:
            probe.close()

    def get(self, path: str) -> Document:
        """Return the resource at `path`."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Document) -> None:
        """Order something."""
        self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> Document:
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            data = answer.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as e:
            raise Unknown(f"it did not answer {method} {path}: {e or type(e).__name__}") from e
        if answer.status in (401, 403):
            raise Refused(f"it refuses the user or password of {self._device.user}")
        if answer.status == 404:
            raise Refused(f"it has no {path}")
        if answer.status >= 500:
            raise Unknown(f"it answered {method} {path} with {answer.status}: {_reason(data)}")
        if answer.status >= 300:
            raise Refused(f"it refused {method} {path} with {answer.status}: {_reason(data)}")
        return _document(data) if method == "GET" else {}

    def system(self) -> Document:
        """Return the system that is meant: the named one, or the only one."""
        if path := self._device.options.get("system"):
            return self.get(path)
        members = [str(m.get("@odata.id")) for m in self.get(SYSTEMS).get("Members", [])]
        if len(members) != 1:
            raise Refused(f"it has {len(members)} systems ({', '.join(members)}): name one as the option system")
        return self.get(members[0])


def _fingerprint(certificate: bytes | None) -> str:
    return hashlib.sha256(certificate or b"").hexdigest()


def _document(data: bytes) -> Document:
    try:
        found = json.loads(data)
    except ValueError as e:
        raise Unknown("its answer is not JSON") from e
    if not isinstance(found, dict):
        raise Unknown("its answer is no resource")
    return found


def _reason(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return data[:200].decode("utf-8", "replace")


def act(request: Request) -> Power:
    """Answer one question of the controller. Raises Refused or Unknown."""
    service = Service(request.device, timeout_s=max(0.5, request.deadline_s - SPARE_S))
    service.connect()
    system = service.system()
    if request.verb == "status":
        return _STATES.get(str(system.get("PowerState")), Power.UNKNOWN)
    reset = system.get("Actions", {}).get("#ComputerSystem.Reset", {}).get("target")
    if not isinstance(reset, str):
        raise Refused("this system has no action to reset it")
    service.post(reset, {"ResetType": _RESET[request.verb]})
    return Power.UNKNOWN


if __name__ == "__main__":
    sys.exit(serve(act))
