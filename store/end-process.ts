import { flushCompileCache } from 'node:module';

/**
 * Has `process.exit` end this process without taking Node apart, when the `exit` listeners have run. Node waits for its own threads at its end, and
 * one of these may be waiting for the main thread (a compilation that wants a garbage collection: nodejs/node issue 54918): then the
 * process hangs for ever. That is rare, but a shim or a command of a script that never ends is worse than one that fails. So the kernel ends the threads:
 * the process becomes a shell that exits with the code. For main threads; a program that ends by running out of work must call
 * `process.exit` itself, because that wait comes before any listener.
 */
export function exitWithoutTeardown(): void {
  const replaced = process as unknown as { reallyExit: (code?: number) => never };
  replaced.reallyExit = (code = 0): never => {
    flushCompileCache();
    return process.execve!('/bin/sh', ['sh', '-c', `exit ${Number(code) & 0xff}`], {});
  };
}
