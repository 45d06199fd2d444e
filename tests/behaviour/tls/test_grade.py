"""testssl.sh finds nothing to complain about in what a listener does with `tls = NAME` alone."""

import json
import subprocess
import threading

import pytest

from harness.certificates import Authority, says_hello
from harness.memory import WITH_ASAN

NAMES = ("weir.test", "127.0.0.1")
# Two runs side by side: protocols, ciphers, their order, what the server tells; then attacks.
RUNS = {"settings": ("-p", "-s", "-P", "-S"), "attacks": ("-U",)}
HARMLESS = ("OK", "INFO", "LOW")
# What is not weir's to mend, each with its reason.
EXCUSED = {
    "cert_revocation": "the authority of the test is asked by nobody: no CRL, no OCSP responder",
    "engine_problem": "of the openssl that testssl.sh runs: it has no GOST",
    "sessionresumption_ticket": "its client may have left before the ticket of TLS 1.3 comes",
}
# Checks that must have been made, and gone well.
WANTED = {
    "settings": ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "ALPN_HTTP2",
                 "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW",
                 "cipherlist_3DES_IDEA", "cipherlist_AVERAGE", "cipherlist_STRONG",
                 "cipher_order", "protocol_negotiated", "cipher_negotiated",
                 "cert_trust <cert#1>", "cert_trust <cert#2>",
                 "cert_chain_of_trust <cert#1>", "cert_chain_of_trust <cert#2>"),
    "attacks": ("heartbleed", "CCS", "ticketbleed", "ROBOT", "secure_renego",
                "secure_client_renego", "CRIME_TLS", "BREACH", "POODLE_SSL", "SWEET32", "FREAK",
                "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4"),
}
LEGACY = ("TLS1", "TLS1_1", "cipherlist_3DES_IDEA", "cipherlist_AVERAGE")


def grade(directory, name, address, checks=()):
    """Findings by their id; those of several certificates stand once for each."""
    file = f"{directory}/{name}.json"
    done = subprocess.run(
        ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--add-ca",
         f"{directory}/ca.crt", *(checks or RUNS[name]), "--jsonfile", file, address],
        stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        with open(file) as read:
            return {finding["id"]: finding for finding in json.load(read)}
    except (OSError, ValueError):
        raise AssertionError(f"testssl ended with {done.returncode}:\n{done.stdout}") from None


@pytest.mark.skipif(WITH_ASAN, reason="twenty seconds for what the other build has shown")
@pytest.mark.long(3)
def test_nothing_above_low_is_found(new_stage, tmp_path):
    ca = Authority(tmp_path)
    rsa = ca.issue("rsa", *NAMES, days=89, kind="rsa")
    stage = new_stage(says_hello(ca.issue("ecdsa", *NAMES, days=89),
                                 f"certificate = {rsa.crt}\nkey = {rsa.key}"))
    found = {}

    def run(name):
        found[name] = grade(tmp_path, name, stage.address())
        # WARN: testssl.sh could not tell, as on a busy machine its own time is up.
        for attempt in ("again", "once more"):
            unclear = [key for key, finding in found[name].items()
                       if finding["severity"] == "WARN" and key not in EXCUSED]
            if not unclear:
                break
            told = grade(tmp_path, f"{name} {attempt}", stage.address(), RUNS[name])
            found[name].update((key, told[key]) for key in unclear if key in told)

    threads = [threading.Thread(target=run, args=(name,)) for name in RUNS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == set(RUNS)
    for name, findings in found.items():
        missing = [wanted for wanted in WANTED[name] if wanted not in findings]
        assert not missing, f"{missing} not among {sorted(findings)}"
        bad = [f"{key}: {finding['severity']} {finding['finding']}"
               for key, finding in findings.items()
               if finding["severity"] not in HARMLESS and key.split()[0] not in EXCUSED]
        bad += [f"{key}: {findings[key]['finding']}" for key in WANTED[name]
                if key not in LEGACY and findings[key]["severity"] != "OK"]
        bad += [f"{key}: {findings[key]['finding']}" for key in LEGACY
                if key in findings and findings[key]["finding"] != "not offered"]
        assert not bad, "\n".join(bad)
