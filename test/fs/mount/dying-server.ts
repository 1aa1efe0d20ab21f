import { Log } from '../../../fs/log/log.ts';

/**
 * The program that serves mounts, but for what DYING says: `killed`: kill -9 comes whenever a request of the kernel's was done and not answered yet;
 * `crashes`: it has a bug that every such request meets.
 */
const { append, grow } = Log.prototype;

function die(): void {
  process.kill(process.pid, process.env['DYING'] === 'killed' ? 'SIGKILL' : 'SIGABRT');
  // The signal is there before the next system call.
  for (;;) process.hrtime();
}

Log.prototype.append = function (entry, payload, freeing): void {
  const isOfRequest = entry.requestLow !== 0;
  if (isOfRequest && process.env['DYING'] === 'crashes') die();
  append.call(this, entry, payload, freeing);
  if (isOfRequest) die();
};

Log.prototype.grow = function (payload, entry): number {
  const place = grow.call(this, payload, entry);
  if (entry.requestLow !== 0) die();
  return place;
};

await import('../../../fs/mount-process.ts');
