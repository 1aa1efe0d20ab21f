import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { Accumulator } from '../mdm/accumulator.ts';
import type { NamedCheckpoint } from './log/checkpoint-entry.ts';
import { takeRoom } from './log/checkpoint-room.ts';
import { isDiskFull } from './log/disk.ts';
import { CHECKPOINT, NEW_CHECKPOINT, OLDER_CHECKPOINT } from './log/checkpoints.ts';
import { CHECKPOINT_MAGIC, type Mark, MARK_HEADER_BYTES, markHeader, markTrailer } from './log/sidecar.ts';

/** What the serving thread hands over of a checkpoint, in order: pieces of its payload, then that these were all, or that nothing comes of it. */
export type CheckpointStep =
  | { step: 'piece'; bytes: Uint8Array<ArrayBuffer> }
  | { step: 'end'; mark: Omit<Mark, 'payload'>; rotates: boolean }
  | { step: 'abandon' };

/** Writes checkpoints beside the thread that serves: it waits for the disk so that nobody else has to. One checkpoint at a time. */
export class CheckpointSink {
  readonly #dir: string;
  /** Told what was installed, or why nothing was (null: it was abandoned). */
  readonly #ended: (result: NamedCheckpoint | Error | null) => void;
  #turn: Promise<void> = Promise.resolve();
  #file: FileHandle | undefined;
  #payload = new Accumulator();
  #check = 0;
  #failure: Error | undefined;

  /** Of the log in `dir`. */
  constructor(dir: string, ended: (result: NamedCheckpoint | Error | null) => void) {
    this.#dir = dir;
    this.#ended = ended;
  }

  /** Takes the next step; it is done after those before. */
  take(step: CheckpointStep): void {
    this.#turn = this.#turn.then(() => this.#do(step));
  }

  /** Resolves when everything taken so far is done. */
  get settled(): Promise<void> {
    return this.#turn;
  }

  async #do(step: CheckpointStep): Promise<void> {
    try {
      if (step.step === 'piece' && this.#failure === undefined) await this.#writeOrMakeRoom(step.bytes);
      else if (step.step === 'end' && this.#failure === undefined) return this.#finish(await this.#install(step));
    } catch (error) {
      this.#failure = error as Error;
    }
    if (step.step === 'piece') return;
    await this.#remove();
    this.#finish(this.#failure ?? null);
  }

  /**
   * With no byte left the older checkpoint makes room: the newest one stays, and with the next the two are there again. Without another nothing that was removed could be
   * given back, and the disk would stay full for good.
   */
  async #writeOrMakeRoom(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      await this.#write(bytes);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      await rm(join(this.#dir, OLDER_CHECKPOINT), { force: true });
      await this.#sync('.');
      await this.#write(bytes);
    }
  }

  async #write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#file ??= await open(join(this.#dir, NEW_CHECKPOINT), takeRoom(this.#dir) ? 'r+' : 'w', 0o600);
    const at = MARK_HEADER_BYTES + this.#payload.size;
    for (let done = 0; done < bytes.length;)
      done += (await this.#file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
    this.#check = crc32(bytes, this.#check);
    this.#payload.append(bytes);
  }

  /** As `installCheckpoint`; the log must be durable up to the mark before. */
  async #install({ mark, rotates }: CheckpointStep & { step: 'end' }): Promise<NamedCheckpoint> {
    const header = markHeader(CHECKPOINT_MAGIC, mark, this.#payload.size);
    const file = this.#file!;
    await file.write(markTrailer(header, this.#check), 0, 4, MARK_HEADER_BYTES + this.#payload.size);
    await file.write(header, 0, header.length, 0);
    await file.truncate(MARK_HEADER_BYTES + this.#payload.size + 4);
    await file.datasync();
    await file.close();
    this.#file = undefined;
    await this.#sync('log');
    const path = (name: string): string => join(this.#dir, name);
    if (rotates) await rename(path(CHECKPOINT), path(OLDER_CHECKPOINT));
    await rename(path(NEW_CHECKPOINT), path(CHECKPOINT));
    await this.#sync('.');
    return { size: mark.size, bytes: this.#payload.size, root: this.#payload.root() };
  }

  async #sync(name: string): Promise<void> {
    const file = await open(join(this.#dir, name), 'r');
    try {
      await file.datasync();
    } finally {
      await file.close();
    }
  }

  async #remove(): Promise<void> {
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    await rm(join(this.#dir, NEW_CHECKPOINT), { force: true }).catch(() => undefined);
  }

  #finish(result: NamedCheckpoint | Error | null): void {
    this.#payload = new Accumulator();
    this.#check = 0;
    this.#failure = undefined;
    this.#ended(result);
  }
}
