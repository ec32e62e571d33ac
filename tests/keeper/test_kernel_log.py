"""The kernel's own line about an engine that it killed for memory. A file and a list stand for its log: no test makes
the kernel kill."""

from pathlib import Path

from core.keeper import keeper

LINE = "Memory cgroup out of memory: Killed process 77 (python3) total-vm:900kB, anon-rss:800kB"


def reads(*answers: str | Exception):
    """What reading the log gives, one line a time; nothing new after that."""
    left = [*answers, BlockingIOError()]

    def read(fd: int, size: int) -> bytes:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer.encode()

    return read


def test_the_line_about_our_process_is_found_among_others() -> None:
    told = reads("4,1,2,-;usb: new device\n", f"3,2,3,-;{LINE}\n SUBSYSTEM=x\n", "3,3,4,-;Killed process 778 (x)\n")
    assert keeper.oom_line(0, 77, told) == LINE
    assert keeper.oom_line(0, 7, reads(f"3,2,3,-;{LINE}\n")) == ""


def test_lines_that_were_overwritten_meanwhile_hide_no_later_one() -> None:
    assert keeper.oom_line(0, 77, reads(BrokenPipeError(), f"3,2,3,-;{LINE}\n")) == LINE


def test_what_stood_in_the_log_before_speaks_of_another_process(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text(f"3,1,1,-;{LINE}\n")
    fd = keeper.kernel_log(str(log))
    assert keeper.oom_line(fd, 77) == ""
    with log.open("a") as file:
        file.write("3,2,2,-;Out of memory: Killed process 77 (engine)\n")
    assert keeper.oom_line(fd, 77) == "Out of memory: Killed process 77 (engine)"
    assert keeper.kernel_log(str(tmp_path / "nothing")) == -1
    assert keeper.oom_line(-1, 77) == ""
