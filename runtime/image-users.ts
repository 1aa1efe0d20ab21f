import { existsSync } from 'node:fs';
import type { ImageRecord } from '../layers/images.ts';
import type { Roots } from '../store/paths.ts';
import { containerIds } from './names.ts';
import { readRecord, readState, recordPath } from './record.ts';

/** The containers that were made from this image. */
export function usersOfImage(roots: Roots, image: Pick<ImageRecord, 'id'>): { name: string; running: boolean }[] {
  return containerIds(roots)
    .filter((id) => existsSync(recordPath(roots, id)))
    .map((id) => ({ record: readRecord(roots, id), state: readState(roots, id) }))
    .filter(({ record }) => `sha256:${record.image.id}` === image.id)
    .map(({ record, state }) => ({ name: record.name, running: ['running', 'restarting'].includes(state.status) }));
}
