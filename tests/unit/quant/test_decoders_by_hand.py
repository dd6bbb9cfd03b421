"""Blocks written field by field, with values worked out by hand: one value in each field, so that
the place of every field in the block is pinned.
"""

from __future__ import annotations

import numpy as np

from rocmforge.quant.formats import GGMLType
from rocmforge.quant.reference import decode


def half(value):
    return np.array(value, "<f2").tobytes()


def one_at(size, index, value):
    raw = bytearray(size)
    raw[index] = value
    return bytes(raw)


def test_q8_1_ignores_the_sum():
    levels = np.arange(-16, 16, dtype=np.int8)
    raw = half(0.5) + half(1234) + levels.tobytes()
    assert decode(GGMLType.Q8_1, raw, 32).tolist() == [0.5 * q for q in range(-16, 16)]


def test_q8_k_ignores_the_sums():
    levels = np.arange(256, dtype=np.uint8).view(np.int8)
    raw = np.array(-0.25, "<f4").tobytes() + levels.tobytes() + bytes([255] * 32)
    expected = [-0.25 * (q if q < 128 else q - 256) for q in range(256)]
    assert decode(GGMLType.Q8_K, raw, 256).tolist() == expected


def test_q1_0_is_a_sign_per_bit_lowest_first():
    raw = half(3) + one_at(16, 2, 0b00000101)
    expected = [-3.0] * 128
    expected[16] = expected[18] = 3.0
    assert decode(GGMLType.Q1_0, raw, 128).tolist() == expected


def test_q4_0_low_halves_come_first():
    # 0x88 is level 8 twice, which is 0; byte 3 holds value 3 (low) and value 19 (high).
    packed = bytearray([0x88] * 16)
    packed[3] = 0xF1
    values = decode(GGMLType.Q4_0, half(2) + bytes(packed), 32)
    assert np.flatnonzero(values).tolist() == [3, 19]
    assert values[[3, 19]].tolist() == [2 * (1 - 8), 2 * (15 - 8)]


def test_q5_1_fifth_bit_and_minimum():
    raw = half(0.5) + half(-3) + (1 << 21).to_bytes(4, "little") + one_at(16, 5, 0x70)
    values = decode(GGMLType.Q5_1, raw, 32)
    assert values[21] == 0.5 * (16 + 7) - 3
    assert (np.delete(values, 21) == -3).all()


def test_q4_k_scale_of_the_last_group_lies_in_two_places():
    # Group 7: low four bits of scale and minimum in byte 11, high pairs in bytes 3 and 7.
    head = bytearray(12)
    head[11] = 0x52
    head[3] = 0b01 << 6
    head[7] = 0b10 << 6
    raw = half(0.25) + half(0.5) + bytes(head) + one_at(128, 96, 0x30)
    values = decode(GGMLType.Q4_K, raw, 256)
    scale, minimum = 0.25 * (16 + 2), 0.5 * (32 + 5)
    assert values[224] == scale * 3 - minimum
    assert (values[225:] == -minimum).all()
    assert (values[:224] == 0).all()


def test_q6_k_value_100():
    # Half 0, run 3 (values 96…127): high half of nibble byte 32 + 4, top pair of high byte 4.
    low, high = one_at(128, 36, 0xA0), one_at(64, 4, 0b11 << 6)
    scales = np.zeros(16, np.int8)
    scales[6] = -3
    raw = low + high + scales.tobytes() + half(0.5)
    values = decode(GGMLType.Q6_K, raw, 256)
    assert values[100] == 0.5 * -3 * (10 + 48 - 32)
    assert np.flatnonzero(values).tolist() == list(range(96, 112))


def test_tq2_0_and_tq1_0_are_minus_one_zero_one():
    crumbs = bytes([0b10_01_00_10] + [0b01_01_01_01] * 63)
    values = decode(GGMLType.TQ2_0, crumbs + half(5), 256)
    assert values[[0, 32, 64, 96]].tolist() == [5, -5, 0, 5]
    assert np.flatnonzero(values).tolist() == [0, 32, 96]
    # Byte b holds five digits t as ⌈256·(t0 t1 t2 t3 t4)₃ / 243⌉; digits 2 0 1 2 0 are 177.
    first = -(-177 * 256 // 243)
    middle = -(-121 * 256 // 243)  # 1 1 1 1 1: five zeros
    raw = bytes([first] + [middle] * 47) + bytes([middle] * 4) + half(7)
    values = decode(GGMLType.TQ1_0, raw, 256)
    assert values[[0, 32, 64, 96, 128]].tolist() == [7, -7, 0, 7, -7]
    assert np.flatnonzero(values).tolist() == [0, 32, 96, 128]


def test_mxfp4_powers_of_two():
    # 2^(e - 127) times the E2M1 numbers 0 0.5 1 1.5 2 3 4 6 and their negatives.
    levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
    packed = bytes(range(16))
    for exponent in (0, 1, 2, 127, 130, 250):
        values = decode(GGMLType.MXFP4, bytes([exponent]) + packed, 32)
        assert values[:16].tolist() == [2.0 ** (exponent - 127) * level for level in levels]


def test_nvfp4_scales_are_e4m3():
    # 0x38 is 1, 0x40 is 2, 0x01 is 2^-9, 0x7E is 448; 16 values each.
    raw = bytes([0x38, 0x40, 0x01, 0x7E]) + bytes([0x77] * 32)
    values = decode(GGMLType.NVFP4, raw, 64).reshape(4, 16)
    assert values.tolist() == [[6.0 * scale] * 16 for scale in (1, 2, 2.0**-9, 448)]


def test_iq4_nl_takes_values_from_its_table():
    packed = bytes([0x0F] + [0x88] * 15)  # level 8 stands for 1
    values = decode(GGMLType.IQ4_NL, half(2) + packed, 32)
    assert values[[0, 16]].tolist() == [2 * 113, 2 * -127]
    assert (np.delete(values, [0, 16]) == 2).all()
