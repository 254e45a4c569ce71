"""Reasons that a person understands."""

import errno
import socket
import ssl

import pytest

from rkllm_mqtt.mqtt.loss import LinkLost, Loss, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "connection refused"),
        (TimeoutError(), "no answer in time"),
        (socket.gaierror(-2, "Name or service not known"), "host name not found: Name or service not known"),
        (FileNotFoundError(2, "No such file", "/etc/ca.pem"), "/etc/ca.pem: No such file"),
        (FileNotFoundError(2, "No such file or directory"), "no such file or directory"),
        (OSError("Unexpected end"), "unexpected end"),
        (ConnectionAbortedError(), "connectionAbortedError"),
    ],
)
def test_an_operating_system_error_is_named(error, reason):
    assert reason_of(error) == reason


def test_an_untrusted_certificate_is_called_so():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    assert reason_of(error) == "the broker's certificate is not trusted: self-signed certificate"


def test_a_tls_alert_is_readable():
    error = ssl.SSLError(1, "")
    error.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert reason_of(error) == "TLS: tlsv13 alert certificate required"


def test_a_lost_link_carries_its_loss():
    assert LinkLost(Loss("gone", 0x8E)).loss.code == 0x8E
    assert str(LinkLost(Loss("gone"))) == "gone"
