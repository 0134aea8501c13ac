"""The pair's certificate authority: one key, made by `futago init`, held by both members, trusted by nobody else.

A certificate says who holds it by its subject: O = pair id, OU = "member" or "agent", CN = name (link/tls.py reads it
back). Addresses stand in the alternative names so that browsers and PostgreSQL clients, who know addresses only, are
served by the same certificate. Every leaf may act as server and as client, since our programs are both. The signer
decides what a certificate says; of a request (CSR) it takes nothing but the proven key.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault

CA_LIFE = timedelta(days=3653)
LEAF_LIFE = timedelta(days=731)
BACKDATED = timedelta(hours=1)  # the other machine's clock may be a little behind


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a certificate names. `kind` is "member" or "agent"; `names` are addresses and host names it may be reached
    by.
    """

    kind: str
    name: str
    pair_id: str
    names: tuple[str, ...] = ()


def make_key() -> bytes:
    """Return a new private key as PEM, without a passphrase: programs start unattended, so the file's mode is its
    guard.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_authority(pair_id: str, ca_key: bytes) -> bytes:
    """Return the self-signed certificate of the pair's authority as PEM."""
    key = _private(ca_key)
    name = _subject(Holder(kind="authority", name=f"futago {pair_id}", pair_id=pair_id))
    now = now_utc()
    usage = _usage(is_ca=True)
    builder = (
        _builder(name, key.public_key(), now, CA_LIFE)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_request(key: bytes) -> bytes:
    """Return a certificate signing request as PEM: the public key and the proof that its private part is held."""
    empty = x509.Name([])
    builder = x509.CertificateSigningRequestBuilder().subject_name(empty)
    return builder.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def sign_request(request: bytes, holder: Holder, *, ca_cert: bytes, ca_key: bytes) -> bytes:
    """Return a certificate as PEM for the key in `request`, saying what `holder` says.

    Raises:
        OperatorFault: the request is not one, or does not prove its key.
    """
    try:
        csr = x509.load_pem_x509_csr(request)
        proven = csr.is_signature_valid and isinstance(csr.public_key(), ec.EllipticCurvePublicKey)
    except (ValueError, InvalidSignature) as e:
        raise OperatorFault("The certificate request cannot be read.", hint=_AGAIN, code="enrol.request") from e
    if not proven:
        raise OperatorFault("The certificate request does not prove its key.", hint=_AGAIN, code="enrol.request")
    return _leaf(csr.public_key(), holder, ca_cert=ca_cert, ca_key=ca_key)


_AGAIN = "Run the command again with the same version of futago on both machines."


def _leaf(public: CertificatePublicKeyTypes, holder: Holder, *, ca_cert: bytes, ca_key: bytes) -> bytes:
    issuer = x509.load_pem_x509_certificate(ca_cert)
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        _builder(_subject(holder), public, now_utc(), LEAF_LIFE)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_ca=False), critical=True)
        .add_extension(usages, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_issuer_id(issuer), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternatives(holder)), critical=False)
    )
    return builder.sign(_private(ca_key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of the certificate (PEM) as lower-case hex digits.

    Raises:
        OperatorFault: it is not a certificate.
    """
    try:
        der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    except ValueError as e:
        raise OperatorFault(
            "The other side's authority certificate cannot be read.", hint=_AGAIN, code="enrol.ca"
        ) from e
    return hashlib.sha256(der).hexdigest()


def is_match(certificate: bytes, key: bytes, *, ca_cert: bytes) -> bool:
    """Is `certificate` for `key`, signed by `ca_cert`, and not about to end? False also if any of them cannot be
    read.
    """
    try:
        leaf, issuer = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificate(ca_cert)
        leaf.verify_directly_issued_by(issuer)
        is_ours = leaf.public_key() == _private(key).public_key()
    except (ValueError, TypeError, InvalidSignature):
        return False
    return is_ours and leaf.not_valid_after_utc - now_utc() > timedelta(days=30)


def says_the_same(one: bytes, other: bytes) -> bool:
    """Do two certificates name the same holder under the same addresses? False also if one cannot be read."""
    try:
        a, b = x509.load_pem_x509_certificate(one), x509.load_pem_x509_certificate(other)
        names = [set(c.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) for c in (a, b)]
    except (ValueError, x509.ExtensionNotFound):
        return False
    return a.subject == b.subject and names[0] == names[1]


def _builder(
    name: x509.Name, public: CertificatePublicKeyTypes, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _subject(holder: Holder) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, holder.pair_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, holder.kind),
            x509.NameAttribute(NameOID.COMMON_NAME, holder.name),
        ]
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _alternatives(holder: Holder) -> Iterable[x509.GeneralName]:
    for name in dict.fromkeys((holder.name, *holder.names)):
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            yield x509.DNSName(name)


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic-curve key")
    return key
