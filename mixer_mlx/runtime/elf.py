"""The calls that a loaded library makes to others, as 64-bit ELF has them: found and redirected."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from collections.abc import Callable

_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_PLTREL, _DT_JMPREL = 2, 5, 6, 7, 20, 23
_JUMP_SLOT = (7, 1026)  # x86-64, aarch64
_RTLD_DI_LINKMAP = 2


class _Dynamic(ctypes.Structure):
    """Elf64_Dyn of elf(5)."""

    _fields_ = (("tag", ctypes.c_int64), ("value", ctypes.c_uint64))


class _Relocation(ctypes.Structure):
    """Elf64_Rela of elf(5)."""

    _fields_ = (
        ("offset", ctypes.c_uint64),
        ("kind", ctypes.c_uint32),
        ("symbol", ctypes.c_uint32),
        ("addend", ctypes.c_int64),
    )


class _Symbol(ctypes.Structure):
    """Elf64_Sym of elf(5)."""

    _fields_ = (
        ("name", ctypes.c_uint32),
        ("info", ctypes.c_uint8),
        ("other", ctypes.c_uint8),
        ("section", ctypes.c_uint16),
        ("value", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


class _LinkMap(ctypes.Structure):
    """The public part of struct link_map in link.h."""

    _fields_ = (
        ("base", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("dynamic", ctypes.POINTER(_Dynamic)),
    )


class _DlInfo(ctypes.Structure):
    """dladdr(3)."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def jump_slots(library: ctypes.CDLL) -> dict[str, int]:
    """Name -> address of the pointer by which the library calls that function of another one.

    Functions that it calls in another way are left out.
    """
    link = ctypes.POINTER(_LinkMap)()
    handle = ctypes.c_void_p(library._handle)
    if ctypes.CDLL(None).dlinfo(handle, _RTLD_DI_LINKMAP, ctypes.byref(link)):
        return {}
    base, table = link.contents.base, _dynamic_section(link.contents)
    if table.get(_DT_PLTREL) != _DT_RELA:
        return {}
    # glibc has added the base to addresses in this section; musl hasn't.
    symbols, strings, relocations = (
        table[tag] if table[tag] >= base else base + table[tag]
        for tag in (_DT_SYMTAB, _DT_STRTAB, _DT_JMPREL)
    )
    count = table[_DT_PLTRELSZ] // ctypes.sizeof(_Relocation)
    slots = {}
    for relocation in (_Relocation * count).from_address(relocations):
        if relocation.kind in _JUMP_SLOT:
            place = symbols + relocation.symbol * ctypes.sizeof(_Symbol)
            name = ctypes.string_at(strings + _Symbol.from_address(place).name)
            slots[name.decode()] = base + relocation.offset
    return slots


def _dynamic_section(link: _LinkMap) -> dict[int, int]:
    entries = map(link.dynamic.__getitem__, itertools.count())
    ended = itertools.takewhile(lambda entry: entry.tag, entries)
    return {entry.tag: entry.value for entry in ended}


def target(slot: int) -> str:
    """The library that a jump slot leads to; empty if it leads to none."""
    info = _DlInfo()
    found = ctypes.CDLL(None).dladdr(_pointer(slot), ctypes.byref(info))
    return os.path.realpath(os.fsdecode(info.file)) if found else ""


def point(slot: int, function: Callable[..., object]) -> None:
    """Make a jump slot lead to a function. Raises OSError if its page can't be written."""
    mprotect = ctypes.CDLL(None).mprotect
    mprotect.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    page, before = slot & -mmap.PAGESIZE, _protection(slot)
    if mprotect(page, mmap.PAGESIZE, before | mmap.PROT_WRITE):
        raise OSError("its memory is protected")
    _pointer(slot).value = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    mprotect(page, mmap.PAGESIZE, before)


def _protection(address: int) -> int:
    """The PROT_* bits of the page at an address, from proc_pid_maps(5)."""
    with open("/proc/self/maps", errors="replace") as lines:
        for line in lines:
            span, access = line.split()[:2]
            low, high = (int(end, 16) for end in span.split("-"))
            if low <= address < high:
                bits = {"r": mmap.PROT_READ, "w": mmap.PROT_WRITE, "x": mmap.PROT_EXEC}
                return sum(bits.get(letter, 0) for letter in access)
    raise OSError(f"no page at {address:#x}")


def _pointer(slot: int) -> ctypes.c_void_p:
    return ctypes.c_void_p.from_address(slot)
