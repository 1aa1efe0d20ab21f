// Compiles mdm/kernel/assembly (AssemblyScript) to mdm/kernel/kernel-bytes.ts: the wasm module as base64, so that it
// needs no file at run time. The twelve rounds of BLAKE2b are written out here: a loop over them would index the
// sixteen words by number and keep none in a register.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

const KERNEL = join(dirname(fileURLToPath(import.meta.url)), '..', 'mdm', 'kernel');
const MARK = '/* twelve rounds: scripts/build-wasm.mjs writes them here */';

/** RFC 7693, section 2.7. */
const SIGMA = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
/** Columns, then diagonals. */
const QUARTERS = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
];

/**
 * How the two lanes in a v128 and the scalar one write the same thing; `v` and `s` are their working vectors, `m` their
 * message words and `n` the scalar ones negated: V8 subtracts straight from memory, but loads what it is to add into a
 * register first, of which there are too few.
 */
const VECTOR = {
  names: ['v', 'm'],
  add: (x, y) => `v128.add<i64>(${x}, ${y})`,
  addWord: (x, m) => `v128.add<i64>(${x}, ${m})`,
  xor: (x, y) => `v128.xor(${x}, ${y})`,
  constant: (i) => `v128.load(CONSTANTS, ${16 * i})`,
  length: 'i64x2.splat(length)',
  rotate: {
    32: (x) => `v128.shuffle<u32>(${x}, ${x}, 1, 0, 3, 2)`,
    24: (x) => `i8x16.relaxed_swizzle(${x}, r24)`,
    16: (x) => `i8x16.relaxed_swizzle(${x}, r16)`,
    63: (x) => `v128.xor(v128.add<i64>(${x}, ${x}), v128.shr<u64>(${x}, 63))`,
  },
};
const SCALAR = {
  names: ['s', 'n'],
  add: (x, y) => `${x} + ${y}`,
  addWord: (x, n) => `${x} - ${n}`,
  xor: (x, y) => `${x} ^ ${y}`,
  constant: (i) => `load<u64>(CONSTANTS, ${16 * i})`,
  length: 'length',
  rotate: Object.fromEntries([32, 24, 16, 63].map((n) => [n, (x) => `rotr<u64>(${x}, ${n})`])),
};

/** The mixing function G (RFC 7693, section 3.1) on quarter `g` of round `r`, as AssemblyScript statements. */
function mix(r, g, { names, add, addWord, xor, constant, length, rotate }) {
  const [a, b, c, d] = QUARTERS[g].map((i) => names[0] + i);
  const [x, y] = [SIGMA[r % 10][2 * g], SIGMA[r % 10][2 * g + 1]];
  const start = r === 0 && g < 4;
  const end = r === 11 && g >= 4;
  // a + b + word, the word first, for it is there before b is. Words 9 to 15 of a 65-byte message are zero.
  const sum = (word) => add(word < 9 ? addWord(a, names[1] + word) : a, b);
  const firstD = g === 0 ? xor(constant(4), length) : constant(4 + g);
  return [
    `${a} = ${start ? addWord(constant(g), names[1] + x) : sum(x)}`,
    `${d} = ${xor(start ? firstD : d, a)}`,
    `${d} = ${rotate[32](d)}`,
    `${c} = ${add(start ? constant(8 + g) : c, d)}`,
    `${b} = ${xor(start ? constant(12 + g) : b, c)}`,
    `${b} = ${rotate[24](b)}`,
    `${a} = ${sum(y)}`,
    `${d} = ${xor(d, a)}`,
    `${d} = ${rotate[16](d)}`,
    `${c} = ${add(c, d)}`,
    // The last b of all is no part of a 256-bit digest.
    ...(end ? [] : [`${b} = ${xor(b, c)}`, `${b} = ${rotate[63](b)}`]),
  ];
}

/** How many statements of one G come before those of the next, in a step of four vector Gs. */
const STRETCHES = [1, 3, 1, 1, 1, 3, 2];

/**
 * A step (four columns or four diagonals) after the other. The vector Gs of a step go abreast, as each for itself waits
 * for its own results most of the time; the scalar ones go one after another, which takes fewest registers. Vector and
 * scalar statements in turn, so that both kinds of execution unit find work at any time.
 */
function rounds() {
  const statements = [];
  for (let step = 0; step < 24; step++) {
    const four = (lane) => [0, 1, 2, 3].map((i) => mix(step >> 1, (step & 1) * 4 + i, lane));
    const [vector, scalar] = [abreast(four(VECTOR)), four(SCALAR).flat()];
    vector.forEach((statement, i) => statements.push(statement, scalar[i]));
  }
  return statements.map((s) => `  ${s};`).join('\n');
}

function abreast(gs) {
  let at = 0;
  return STRETCHES.flatMap((length) => {
    at += length;
    return gs.flatMap((g) => g.slice(at - length, at));
  });
}

const source = (name) => {
  try {
    return readFileSync(join(KERNEL, 'assembly', name), 'utf8').replace(MARK, () => rounds());
  } catch {
    return null; // the compiler also asks for names it only guesses at
  }
};
let wasm;
const options = [
  '--runtime',
  'stub',
  // Binaryen would move statements about; V8 keeps the order they have.
  '-O0',
  '--noAssert',
  '--enable',
  'simd',
  '--enable',
  'relaxed-simd',
  '--memoryBase',
  '1024',
];
const { error, stderr } = await asc.main(
  ['kernel.ts', '--outFile', 'kernel.wasm', '--initialMemory', '208', '--maximumMemory', '208', ...options],
  {
    readFile: source,
    writeFile: (name, bytes) => {
      if (name === 'kernel.wasm') wasm = bytes;
    },
    listFiles: () => [],
  },
);
if (error !== null || wasm === undefined) {
  console.error(stderr.toString());
  throw error ?? new Error('the AssemblyScript compiler wrote nothing');
}
const base64 = Buffer.from(wasm).toString('base64');
// Renamed into place: others may be importing it.
const target = join(KERNEL, 'kernel-bytes.ts');
writeFileSync(
  `${target}.new`,
  `// Written by scripts/build-wasm.mjs from mdm/kernel/assembly. Not in the repository.\nexport const KERNEL_WASM_BASE64 =\n  '${base64}';\n`,
);
renameSync(`${target}.new`, target);
