"""The journal clock goes on across restarts, whatever the machine's clocks do."""

from dataclasses import dataclass

import pytest

from rkllm_mqtt.store.clock import Checkpoint, ClockSource, JournalClock

TRUE_WALL_S = 1_800_000_000.0


@dataclass
class Machine:
    """The clocks of a board."""

    boot: str = "boot-1"
    uptime: float = 1000.0
    wall: float = TRUE_WALL_S

    def source(self):
        return ClockSource(lambda: self.boot, lambda: self.uptime, lambda: self.wall)

    def pass_by(self, seconds):
        self.uptime += seconds
        self.wall += seconds

    def reboot(self, wall):
        self.boot, self.uptime, self.wall = self.boot + "'", 5.0, wall


def resumed(machine, last):
    clock = JournalClock(machine.source())
    clock.resume(last)
    return clock


def test_a_new_clock_counts_from_zero_and_ignores_the_wall():
    machine = Machine()
    clock = JournalClock(machine.source())
    assert clock.now() == 0.0
    machine.pass_by(12.5)
    machine.wall -= 1e9
    assert clock.now() == 12.5


def test_a_daemon_restart_counts_the_time_between_even_when_the_wall_clock_steps():
    machine = Machine()
    last = Checkpoint(50.0, machine.boot, machine.uptime, machine.wall)
    machine.pass_by(7.0)
    machine.wall += 3e7  # the network set the time meanwhile
    assert resumed(machine, last).now() == 57.0


def test_a_reboot_counts_the_time_between_by_the_wall_clock():
    machine = Machine()
    last = Checkpoint(50.0, machine.boot, machine.uptime, machine.wall)
    machine.reboot(wall=TRUE_WALL_S + 3600.0)
    assert resumed(machine, last).now() == 3650.0


@pytest.mark.parametrize(
    ("wall_before", "wall_after"),
    [
        (TRUE_WALL_S, TRUE_WALL_S - 60.0),
        (TRUE_WALL_S, 0.0),
        (12.0, TRUE_WALL_S),
        (TRUE_WALL_S, TRUE_WALL_S + 400 * 86_400.0),
    ],
)
def test_a_wall_clock_that_cannot_be_true_counts_for_nothing(wall_before, wall_after):
    machine = Machine(wall=wall_before)
    last = Checkpoint(50.0, machine.boot, machine.uptime, machine.wall)
    machine.reboot(wall=wall_after)
    clock = resumed(machine, last)
    assert clock.now() == 50.0
    machine.pass_by(1.0)
    assert clock.now() == 51.0


def test_machines_without_boot_id_fall_back_to_the_wall_clock():
    machine = Machine(boot="")
    last = Checkpoint(50.0, "", machine.uptime, machine.wall)
    machine.pass_by(4.0)
    machine.uptime = 1.0
    assert resumed(machine, last).now() == 54.0


def test_the_clocks_of_this_machine_can_be_read():
    clock = JournalClock(ClockSource())
    assert 0.0 <= clock.now() <= clock.now()
    assert clock.checkpoint().wall_s > TRUE_WALL_S - 2e8


async def test_the_journal_clock_goes_on_after_a_restart_and_a_crash(opened, new_job, crash_copy):
    machine = Machine()
    async with opened(source=machine.source()) as journal:
        machine.pass_by(10.0)
        await journal.admit(new_job("a"), may_insert=True, receipt=None)
        copy = crash_copy(journal.path)
        machine.pass_by(90.0)
        assert journal.now() == 100.0
    machine.pass_by(20.0)
    async with opened(source=machine.source()) as journal:
        assert journal.now() == 120.0
    machine.reboot(wall=0.0)
    async with opened(copy, source=machine.source()) as journal:
        assert journal.now() == 10.0


async def test_a_new_journal_stores_its_clock_before_anything_is_asked(opened, crash_copy):
    machine = Machine()
    async with opened(source=machine.source()) as journal:
        copy = crash_copy(journal.path)
    machine.pass_by(30.0)
    async with opened(copy, source=machine.source()) as journal:
        assert journal.now() == 30.0
