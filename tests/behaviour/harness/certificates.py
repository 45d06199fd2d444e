"""An authority of the test's own: certificates, lists of revocations, OCSP responses, as files.

    ca = Authority(directory)                 ca.file: its certificate
    site = ca.issue("site", "a.example")      site.crt, site.key; names or addresses
    ca.revoke(site); ca.write_crl()           a file
    ca.write_staple(site)                     a file
"""

import datetime
import ipaddress
import os
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
CURVES = {"ec": ec.SECP256R1, "secp521r1": ec.SECP521R1, "secp256k1": ec.SECP256K1}
PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
           serialization.NoEncryption())


def _now():
    return datetime.datetime.utcnow()


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"),
                      x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Issued:
    """A certificate with its key, in `crt` and `key`: two files or, in one, the same."""

    def __init__(self, directory, stem, certificate, private, in_one=False):
        self.certificate = certificate
        self.private = private
        self.crt = f"{directory}/{stem}.{'pem' if in_one else 'crt'}"
        self.key = self.crt if in_one else f"{directory}/{stem}.key"
        self.write()

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def not_after(self):
        return self.certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc).timestamp()

    def write(self):
        """Whole files take the place of those that are there."""
        key = self.private.private_bytes(*PRIVATE)
        for path, text in (((self.crt, self.pem + key),) if self.crt == self.key else
                           ((self.key, key), (self.crt, self.pem))):
            with open(f"{path}.new", "wb") as file:
                file.write(text)
            os.replace(f"{path}.new", path)


class Authority:
    def __init__(self, directory, name="ca", days=30):
        self.directory = str(directory)
        self.name = name
        self.revoked = []
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._build(_name(name), self.private.public_key(), days, True, [])
        self.file = f"{self.directory}/{name}.crt"
        with open(self.file, "wb") as file:
            file.write(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _build(self, subject, public, days, is_ca, names):
        builder = (x509.CertificateBuilder()
                   .subject_name(subject).issuer_name(_name(self.name)).public_key(public)
                   .serial_number(x509.random_serial_number())
                   .not_valid_before(_now() - DAY * 2).not_valid_after(_now() + DAY * (days + 0.5))
                   .add_extension(x509.BasicConstraints(is_ca, None), critical=True))
        if names:
            names = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.private, hashes.SHA256())

    def issue(self, stem, *names, kind="ec", days=30, subject=None, in_one=False):
        private = (rsa.generate_private_key(65537, 2048) if kind == "rsa"
                   else ec.generate_private_key(CURVES[kind]()))
        certificate = self._build(_name(subject or stem), private.public_key(), days, False, names)
        return Issued(self.directory, stem, certificate, private, in_one)

    def revoke(self, issued):
        self.revoked.append(issued.certificate.serial_number)

    def write_crl(self, stem="crl", days=1):
        builder = (x509.CertificateRevocationListBuilder().issuer_name(_name(self.name))
                   .last_update(_now() - DAY * 3).next_update(_now() + DAY * days))
        for serial in self.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial)
                .revocation_date(_now() - DAY).build())
        path = f"{self.directory}/{stem}.crl"
        with open(path, "wb") as file:
            file.write(builder.sign(self.private, hashes.SHA256())
                       .public_bytes(serialization.Encoding.PEM))
        return path

    def write_staple(self, issued, stem="staple", days=1):
        response = (ocsp.OCSPResponseBuilder()
                    .add_response(issued.certificate, self.certificate, hashes.SHA1(),
                                  ocsp.OCSPCertStatus.GOOD, _now() - DAY * 3, _now() + DAY * days,
                                  None, None)
                    .responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
                    .sign(self.private, hashes.SHA256()))
        path = f"{self.directory}/{stem}.der"
        with open(path, "wb") as file:
            file.write(response.public_bytes(serialization.Encoding.DER))
        return path


def says_hello(site, more=""):
    """An INI file: listener `web` answers hello over TLS; `more` lines of its [tls site]."""
    return f"""
[listener web]
bind = @web
service = hello
tls = site
[tls site]
certificate = {site.crt}
key = {site.key}
{more}
[service hello]
type = respond
body = hello
"""


def client(authority=None, version=None, own=None, algorithms=None, alpn=None):
    """A context for a client: believes `authority` only (None: everybody)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if authority:
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    if version:
        context.minimum_version = context.maximum_version = version
    if own:
        context.load_cert_chain(own.crt, own.key)
    if algorithms:
        context.set_ciphers(algorithms)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context
