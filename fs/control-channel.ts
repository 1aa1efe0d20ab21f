import { readSync, writeSync } from 'node:fs';
import type { ToHolder, ToServer } from './control.ts';
import { awaitDevice } from './fuse/device.ts';

const CHUNK_BYTES = 64 << 10;

/** The server's end of the socket to its holder. It is read and written by the thread that serves, which has no event loop: synchronously. */
export class ControlChannel {
  /** The holder has ended. */
  closed = false;
  private readonly fd: number;
  private readonly chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  private pieces: Buffer[] = [];
  private readonly received: ToServer[] = [];

  constructor(fd: number) {
    this.fd = fd;
  }

  /** Waits for the next message; undefined when the holder has ended. */
  next(): ToServer | undefined {
    while (this.received.length === 0 && !this.closed) this.read();
    return this.received.shift();
  }

  /** The next message if there is one; does not wait. */
  poll(): ToServer | undefined {
    while (this.received.length === 0 && !this.closed && awaitDevice(this.fd, 0) > 0) this.read();
    return this.received.shift();
  }

  /** A message to a holder that has ended goes nowhere. */
  send(message: ToHolder): void {
    const bytes = Buffer.from(`${JSON.stringify(message)}\n`);
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.fd, bytes, done);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EPIPE' && code !== 'ECONNRESET') throw error;
      this.closed = true;
    }
  }

  private read(): void {
    let got = 0;
    try {
      got = readSync(this.fd, this.chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
    }
    if (got === 0) {
      this.closed = true;
      return;
    }
    let from = 0;
    for (let end = this.chunk.indexOf(10); end >= 0 && end < got; end = this.chunk.indexOf(10, from)) {
      const line = Buffer.concat([...this.pieces, this.chunk.subarray(from, end)]);
      this.pieces = [];
      this.received.push(JSON.parse(line.toString()) as ToServer);
      from = end + 1;
    }
    if (from < got) this.pieces.push(Buffer.from(this.chunk.subarray(from, got)));
  }
}
