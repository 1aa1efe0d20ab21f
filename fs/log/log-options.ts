import type { AppendBuffer } from './append-buffer.ts';
import type { RoomWriter } from './room-writer.ts';

/** How a log is opened. */
export interface OpenLogOptions {
  /** Make the directory and an empty log when there is none. */
  create?: boolean;
  /** Write nothing, not even to cut a torn tail, and take no lock. */
  readOnly?: boolean;
  /** Of a log opened read-only: nothing behind this size, a commit's end, is looked at; the log may be written meanwhile. */
  limit?: number;
  /** Root of the image tree below (32 bytes; absent = 'scratch'): recorded at creation, and compared at open when given. */
  base?: Uint8Array;
  /** Where entries gather before they are written; what another process left in it of this log is taken over. */
  buffer?: AppendBuffer;
  /** What writes full rooms of `buffer` beside the thread that appends; without it that thread does. */
  writer?: RoomWriter;
}
