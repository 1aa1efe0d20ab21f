import { badHeader, BLOCK_BYTES, decodeNumber, type PaxRecords, paxNumber, SPECIAL_BYTES_MAX } from './tar-header.ts';

/** A run of data in a sparse file; between runs are zeros. */
export interface Run {
  offset: number;
  length: number;
}

/** Where the data of a sparse file goes: GNU tar manual, "Storing Sparse Files". */
export interface SparseMap {
  /** Bytes of the file, holes included. */
  realSize: number;
  runs: Run[];
}

/** Old GNU format (type `S`): four runs in the header, then 21 in each extension block. `more` reads the next block. */
export async function oldGnuMap(header: Buffer, offset: number, more: () => Promise<Buffer>): Promise<SparseMap> {
  const runs: Run[] = [];
  const realSize = decodeNumber(header, 483, 12, offset, 'real size');
  takeRuns(header, 386, 4, offset, runs);
  let extended = header[482] !== 0;
  for (let bytes = 0; extended; bytes += BLOCK_BYTES) {
    if (bytes >= SPECIAL_BYTES_MAX) throw badHeader(offset, 'the sparse map is larger than 1 MiB');
    const block = await more();
    takeRuns(block, 0, 21, offset, runs);
    extended = block[504] !== 0;
  }
  return { realSize, runs };
}

function takeRuns(block: Buffer, start: number, count: number, offset: number, runs: Run[]): void {
  for (let i = 0; i < count; i++) {
    const at = start + i * 24;
    if (block[at] === 0) return;
    runs.push({
      offset: decodeNumber(block, at, 12, offset, 'sparse offset'),
      length: decodeNumber(block, at + 12, 12, offset, 'sparse length'),
    });
  }
}

/** PAX formats 0.0 and 0.1: the map is in the extended header. Undefined when there is none. */
export function paxMap(pax: PaxRecords, offset: number): SparseMap | undefined {
  const size = pax.values.get('GNU.sparse.size') ?? pax.values.get('GNU.sparse.realsize');
  const text = pax.values.get('GNU.sparse.map');
  if (size === undefined || (text === undefined && pax.values.get('GNU.sparse.numblocks') === undefined))
    return undefined;
  const numbers: number[] = [];
  if (text !== undefined) {
    for (const part of text === '' ? [] : text.split(',')) numbers.push(paxNumber(part, offset, 'GNU.sparse.map'));
  } else {
    for (let i = 0; i < pax.sparsePairs.length; i += 2) {
      const expected = i % 4 === 0 ? 'GNU.sparse.offset' : 'GNU.sparse.numbytes';
      if (pax.sparsePairs[i] !== expected) throw badHeader(offset, 'sparse offsets and lengths do not alternate');
      numbers.push(paxNumber(pax.sparsePairs[i + 1]!, offset, expected));
    }
  }
  return { realSize: paxNumber(size, offset, 'GNU.sparse.size'), runs: pairUp(numbers, offset) };
}

/** Whether the extended header announces PAX format 1.0, whose map is at the beginning of the data. */
export function hasMapInData(pax: PaxRecords): boolean {
  return pax.values.get('GNU.sparse.major') === '1' && pax.values.get('GNU.sparse.minor') === '0';
}

/** PAX format 1.0: decimal lines (count, then offset and length of each run), padded to whole blocks, before the data. */
export async function dataMap(
  pax: PaxRecords,
  offset: number,
  more: () => Promise<Buffer>,
): Promise<{ map: SparseMap; mapBytes: number }> {
  const numbers: number[] = [];
  let wanted = 1;
  let mapBytes = 0;
  let rest = '';
  while (numbers.length < wanted) {
    if (mapBytes >= SPECIAL_BYTES_MAX) throw badHeader(offset, 'the sparse map is larger than 1 MiB');
    const lines = (rest + (await more()).toString('latin1')).split('\n');
    mapBytes += BLOCK_BYTES;
    rest = lines.pop()!;
    if (rest.length > BLOCK_BYTES) throw badHeader(offset, 'the sparse map is not a list of numbers');
    for (const line of lines) {
      if (numbers.length === wanted) break;
      numbers.push(paxNumber(line, offset, 'sparse map'));
      if (numbers.length === 1) wanted = 1 + 2 * numbers[0]!;
    }
  }
  const realSize = pax.values.get('GNU.sparse.realsize') ?? pax.values.get('GNU.sparse.size');
  if (realSize === undefined) throw badHeader(offset, 'a sparse file without its real size');
  const map = { realSize: paxNumber(realSize, offset, 'GNU.sparse.realsize'), runs: pairUp(numbers.slice(1), offset) };
  return { map, mapBytes };
}

function pairUp(numbers: number[], offset: number): Run[] {
  if (numbers.length % 2 !== 0) throw badHeader(offset, 'the sparse map ends in the middle of a run');
  return Array.from({ length: numbers.length / 2 }, (_, i) => ({
    offset: numbers[i * 2]!,
    length: numbers[i * 2 + 1]!,
  }));
}

/** The map without empty runs. PgError `TAR_BAD_HEADER` unless the runs are in order, apart, inside the file, and `dataBytes` together. */
export function checkedMap(map: SparseMap, dataBytes: number, offset: number): SparseMap {
  if (map.realSize < 0) throw badHeader(offset, 'a sparse file of negative size');
  let end = 0;
  let sum = 0;
  for (const run of map.runs) {
    if (run.length < 0 || run.offset < end || run.offset + run.length > map.realSize) {
      throw badHeader(offset, 'the runs of a sparse file overlap or leave it');
    }
    end = run.offset + run.length;
    sum += run.length;
  }
  if (sum !== dataBytes)
    throw badHeader(offset, `the sparse map is of ${sum} bytes of data, the archive has ${dataBytes}`);
  return { realSize: map.realSize, runs: map.runs.filter((run) => run.length > 0) };
}
