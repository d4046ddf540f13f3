// Polls every two seconds while the training page is visible; Python returns what has changed.
const reload = () => { if (element.querySelector('[data-reload]')) location.reload(); };
const look = () => { if (!document.hidden && element.querySelector('[data-job]')) act('look', {}); };
setInterval(look, 2000);
document.addEventListener('visibilitychange', look);
watch('value', reload);
