import { type Change, type CommittedFile, GROUP_HASHES, HASH_LEVELS, type HashLevel } from './file.ts';
import type { State } from './instruction.ts';
import { LEAF_BYTES, ROOT_BYTES } from './kernel/kernel.ts';
import { BLOCK_BYTES, SECTOR_BYTES } from './merkle.ts';
import type { ProofSource } from './opening.ts';
import { sectorOf, StagedFile } from './staged-file.ts';
import { zeroRoot } from './subtrees.ts';

/** A host that keeps its files in memory: for tests, and for whoever wants the machine without a disk. */
export class MemoryHost {
  readonly #files: MemoryFile[] = [];

  /** A new file with these bytes. */
  createFile(data: Uint8Array = new Uint8Array(0)): MemoryFile {
    const file = new MemoryFile(this);
    this.#files.push(file);
    const staged = new StagedFile(file);
    staged.truncate(data.length);
    staged.write(0, data);
    for (const _ of staged.rehash()) continue;
    file.commit(staged);
    return file;
  }

  /** The committed full sector with this root, of any file; good until that file's next commit. */
  sector(root: Uint8Array): ProofSource | undefined {
    for (const file of this.#files) {
      const index = file.findSector(root);
      if (index !== undefined) return sectorOf(new StagedFile(file), index);
    }
    return undefined;
  }
}

/** A file of a MemoryHost. Blocks and groups that are not there are zeros. */
export class MemoryFile implements CommittedFile {
  readonly #host: MemoryHost;
  #state: State = { root: new Uint8Array(ROOT_BYTES), size: 0 };
  readonly #blocks = new Map<number, Uint8Array>();
  readonly #groups = new Map<HashLevel, Map<number, Uint8Array>>(HASH_LEVELS.map((level) => [level, new Map()]));

  constructor(host: MemoryHost) {
    this.#host = host;
  }

  get state(): State {
    return this.#state;
  }

  readAt(into: Uint8Array, offset: number): void {
    for (let at = 0; at < into.length;) {
      const inBlock = (offset + at) % BLOCK_BYTES;
      const part = into.subarray(at, at + BLOCK_BYTES - inBlock);
      const block = this.#blocks.get(Math.floor((offset + at) / BLOCK_BYTES));
      if (block === undefined) part.fill(0);
      else part.set(block.subarray(inBlock, inBlock + part.length));
      at += part.length;
    }
  }

  hashes(level: HashLevel, group: number): Uint8Array | undefined {
    return this.#groups.get(level)!.get(group);
  }

  sector(root: Uint8Array): ProofSource | undefined {
    return this.#host.sector(root);
  }

  /** The number of a full sector with this root. */
  findSector(root: Uint8Array): number | undefined {
    const full = Math.floor(this.#state.size / SECTOR_BYTES);
    const wantsZeros = Buffer.compare(root, zeroRoot(16)) === 0;
    for (let first = 0; first < full; first += GROUP_HASHES) {
      const group = this.hashes(16, first / GROUP_HASHES);
      if (group === undefined && wantsZeros) return first;
      if (group === undefined) continue;
      for (let i = 0; i < Math.min(GROUP_HASHES, full - first); i++) {
        if (Buffer.compare(group.subarray(i * ROOT_BYTES, (i + 1) * ROOT_BYTES), root) === 0) return first + i;
      }
    }
    return undefined;
  }

  commit(change: Change): void {
    const keptBlocks = Math.ceil(change.keptBytes / BLOCK_BYTES);
    for (const index of this.#blocks.keys()) if (index >= keptBlocks) this.#blocks.delete(index);
    for (const [index, block] of change.blocks) this.#blocks.set(index, block);
    for (const [level, groups] of this.#groups) {
      const span = GROUP_HASHES * LEAF_BYTES * 2 ** level;
      for (const group of groups.keys()) if (group * span >= change.keptBytes) groups.delete(group);
      for (const [group, hashes] of change.changedGroups(level)) groups.set(group, hashes);
    }
    this.#state = change.final;
  }
}
