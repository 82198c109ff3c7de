// Loads the page again when an object changes, at most every five seconds. Without scripts the page does so every thirty.
const events = new EventSource("/events");
let waiting = false;
function again() {
  if (waiting || document.hidden) return;
  waiting = true;
  setTimeout(() => location.reload(), 5000);
}
events.addEventListener("object", again);
setTimeout(() => location.reload(), 60000);
