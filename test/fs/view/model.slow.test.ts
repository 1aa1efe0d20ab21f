import { modelSuite } from './model-suite.ts';

/** Many programs: `PG_TEST_RUNS=5000` for a night. */
modelSuite(Number(process.env['PG_TEST_RUNS'] ?? 150));
