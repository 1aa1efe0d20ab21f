import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { MEMORY_FD } from './control.ts';
import { AppendBuffer } from './log/append-buffer.ts';
import { RoomWriter } from './log/room-writer.ts';
import { useSharedMemory } from './shared-memory.ts';

/** What the thread is started with: `RoomWriter.shared`. */
export interface WriteWorkerData {
  writer: SharedArrayBuffer;
}

/** A thread beside the one that serves, started when a room of the log's buffer is full: writes full rooms. It ends when it has had nothing to do for a while. */
try {
  const { writer } = workerData as WriteWorkerData;
  const never = (): void => {
    throw new Error('a thread does not start itself');
  };
  const rooms = new RoomWriter(never, writer);
  useSharedMemory(MEMORY_FD, AppendBuffer.BYTES, (memory) => rooms.serve(new AppendBuffer(memory)));
} catch (error) {
  // Whoever waits for it would wait for ever; the next process does better.
  writeSync(2, `pg: the filesystem's log writer failed: ${(error as Error).stack}\n`);
  process.kill(process.pid, 'SIGABRT');
}
