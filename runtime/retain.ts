import { mkdirSync } from 'node:fs';
import { type Retain, readRetain, writeRetain } from '../fs/log/retention.ts';
import type { Roots } from '../store/paths.ts';
import { type ContainerRecord, logDirOf, readRecord, writeRecord } from './record.ts';
import { resolveContainer } from './names.ts';

/** Tells the log of a container that is about to run how much of its history is to be kept. */
export function keepRetention(roots: Roots, record: ContainerRecord): void {
  const dir = logDirOf(roots, record.id);
  const wanted = record.config.retain ?? { bytes: null, ms: null };
  const now = readRetain(dir);
  if (now.bytes === wanted.bytes && now.ms === wanted.ms) return;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  writeRetain(dir, wanted);
}

/** Changes how much of a container's history is kept, running or not. What is over the limit goes when its log is cleaned next. NO_SUCH_CONTAINER. */
export function setRetention(roots: Roots, ref: string, retain: Retain): void {
  const record = readRecord(roots, resolveContainer(roots, ref));
  const changed = { ...record, config: { ...record.config, retain } };
  writeRecord(roots, changed);
  keepRetention(roots, changed);
}
