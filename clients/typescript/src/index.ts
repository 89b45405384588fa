export { Client } from "./client.js";
export type { Answer, Call, Connection, Feedback, FeedbackCall, ModelService, Penstock, Settings } from "./client.js";
export { Code, PenstockError } from "./errors.js";
export { Budget, type Retries } from "./retry.js";
