import json

import pytest
from request_caller import SECRET_VARIABLE, Caller, Callers, InvalidCallerError

SECRET = "ab" * 32


def parameters(**values):
    return json.dumps(values)


def test_a_request_is_from_the_tenant_that_its_parameters_name():
    callers = Callers.from_environment({SECRET_VARIABLE: SECRET})
    assert callers.read("") == callers.read("{}") == Caller("", False)
    assert callers.read(parameters(sam2_tenant="alice", other=1)) == Caller("alice", False)


def test_the_inside_is_known_by_the_process_secret():
    callers = Callers(SECRET)
    assert callers.read(json.dumps(callers.inner_parameters())) == Caller("", True)
    assert callers.read(json.dumps(callers.inner_parameters("alice"))) == Caller("alice", True)
    assert callers.read(parameters(sam2_tenant=":probe", sam2_inner_secret=SECRET)).is_inner
    for forged in ("", SECRET[:-1], SECRET + "0", SECRET.upper(), "é", 7, True):
        assert not callers.read(parameters(sam2_inner_secret=forged)).is_inner


def test_tenants_of_the_inside_are_nobody_elses():
    for callers in (Callers(SECRET), Callers("")):
        for forged in ({}, {"sam2_inner_secret": ""}, {"sam2_inner_secret": "x"}):
            with pytest.raises(InvalidCallerError, match="sam2_tenant: expected a name"):
                callers.read(parameters(sam2_tenant=":probe", **forged))


@pytest.mark.parametrize("name", [7, True, "x" * 65, "é" * 33])
def test_other_names_are_refused(name):
    with pytest.raises(InvalidCallerError, match="sam2_tenant: expected text of at most 64 bytes"):
        Callers(SECRET).read(parameters(sam2_tenant=name))


def test_without_a_launcher_nobody_is_inside():
    callers = Callers.from_environment({})
    assert not callers.knows_inner_calls
    assert callers.inner_parameters("alice") == {"sam2_tenant": "alice"}
    assert not callers.read(parameters(sam2_inner_secret="")).is_inner
