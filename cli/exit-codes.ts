/** Exit codes as Docker has them: 125 the engine failed, 126 the command cannot be invoked, 127 it was not found. */
export const EXIT_ENGINE = 125;
