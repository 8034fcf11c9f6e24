// XXH64 with seed 0, on halves of 32 bits: BigInt is many times slower.

// Products and sums of 64 bits are in these two.
let hi = 0;
let lo = 0;

function multiply(aHi, aLo, bHi, bLo) {
  const a0 = aLo & 0xffff;
  const a1 = aLo >>> 16;
  const b0 = bLo & 0xffff;
  const b1 = bLo >>> 16;
  const low = a0 * b0;
  const mid1 = a1 * b0 + (low >>> 16);
  const mid2 = a0 * b1 + (mid1 & 0xffff);
  const high = a1 * b1 + Math.floor(mid1 / 65_536) + Math.floor(mid2 / 65_536);
  lo = ((mid2 << 16) | (low & 0xffff)) >>> 0;
  hi = (high + Math.imul(aHi, bLo) + Math.imul(aLo, bHi)) >>> 0;
}

function add(aHi, aLo, bHi, bLo) {
  const sum = aLo + bLo;
  lo = sum >>> 0;
  hi = (aHi + bHi + (sum > 0xffffffff ? 1 : 0)) >>> 0;
}

function rotate(aHi, aLo, bits) {
  if (bits >= 32) [aHi, aLo, bits] = [aLo, aHi, bits - 32];
  if (bits === 0) {
    [hi, lo] = [aHi, aLo];
    return;
  }
  hi = ((aHi << bits) | (aLo >>> (32 - bits))) >>> 0;
  lo = ((aLo << bits) | (aHi >>> (32 - bits))) >>> 0;
}

const P1 = [0x9e3779b1, 0x85ebca87];
const P2 = [0xc2b2ae3d, 0x27d4eb4f];
const P3 = [0x165667b1, 0x9e3779f9];
const P4 = [0x85ebca77, 0xc2b2ae63];
const P5 = [0x27d4eb2f, 0x165667c5];

/** Mixes eight bytes into an accumulator; the result is in `hi` and `lo`. */
function round(accHi, accLo, inHi, inLo) {
  multiply(inHi, inLo, P2[0], P2[1]);
  add(accHi, accLo, hi, lo);
  rotate(hi, lo, 31);
  multiply(hi, lo, P1[0], P1[1]);
}

function word(bytes, at) {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

/** The four accumulators after all whole stripes of 32 bytes; the merged hash is in `hi` and `lo`. */
function stripes(bytes, end) {
  const acc = [0x60ea27ee, 0xadc0b5d6, P2[0], P2[1], 0, 0, 0x61c8864e, 0x7a143579];
  for (let at = 0; at < end; at += 32) {
    for (let lane = 0; lane < 4; lane++) {
      const from = at + lane * 8;
      round(acc[2 * lane], acc[2 * lane + 1], word(bytes, from + 4), word(bytes, from));
      acc[2 * lane] = hi;
      acc[2 * lane + 1] = lo;
    }
  }
  let sumHi = 0;
  let sumLo = 0;
  const turns = [1, 7, 12, 18];
  for (let lane = 0; lane < 4; lane++) {
    rotate(acc[2 * lane], acc[2 * lane + 1], turns[lane]);
    add(sumHi, sumLo, hi, lo);
    sumHi = hi;
    sumLo = lo;
  }
  for (let lane = 0; lane < 4; lane++) {
    round(0, 0, acc[2 * lane], acc[2 * lane + 1]);
    multiply((sumHi ^ hi) >>> 0, (sumLo ^ lo) >>> 0, P1[0], P1[1]);
    add(hi, lo, P4[0], P4[1]);
    sumHi = hi;
    sumLo = lo;
  }
  hi = sumHi;
  lo = sumLo;
}

/**
 * The upper 40 bits of the XXH64 of `bytes` with seed 0.
 * @param {Uint8Array} bytes
 */
export function xxh64Entry(bytes) {
  hash(bytes);
  return hi * 256 + (lo >>> 24);
}

/**
 * The XXH64 of `bytes` with seed 0, as 16 hexadecimal digits.
 * @param {Uint8Array} bytes
 */
export function xxh64Hex(bytes) {
  hash(bytes);
  return hi.toString(16).padStart(8, "0") + lo.toString(16).padStart(8, "0");
}

function hash(bytes) {
  const length = bytes.length;
  let at = length - (length % 32);
  if (at > 0) stripes(bytes, at);
  else [hi, lo] = P5;
  add(hi, lo, 0, length);
  let h = hi;
  let l = lo;
  for (; at + 8 <= length; at += 8) {
    round(0, 0, word(bytes, at + 4), word(bytes, at));
    rotate((h ^ hi) >>> 0, (l ^ lo) >>> 0, 27);
    multiply(hi, lo, P1[0], P1[1]);
    add(hi, lo, P4[0], P4[1]);
    h = hi;
    l = lo;
  }
  if (at + 4 <= length) {
    multiply(0, word(bytes, at), P1[0], P1[1]);
    rotate((h ^ hi) >>> 0, (l ^ lo) >>> 0, 23);
    multiply(hi, lo, P2[0], P2[1]);
    add(hi, lo, P3[0], P3[1]);
    h = hi;
    l = lo;
    at += 4;
  }
  for (; at < length; at++) {
    multiply(0, bytes[at], P5[0], P5[1]);
    rotate((h ^ hi) >>> 0, (l ^ lo) >>> 0, 11);
    multiply(hi, lo, P1[0], P1[1]);
    h = hi;
    l = lo;
  }
  // h ^= h >>> 33; h *= P2; h ^= h >>> 29; h *= P3; h ^= h >>> 32
  multiply(h, (l ^ (h >>> 1)) >>> 0, P2[0], P2[1]);
  h = hi;
  l = lo;
  multiply((h ^ (h >>> 29)) >>> 0, (l ^ ((l >>> 29) | (h << 3))) >>> 0, P3[0], P3[1]);
  lo = (lo ^ hi) >>> 0;
}
