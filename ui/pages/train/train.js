// The training page looks for news every two seconds while somebody sees it; Python answers with what has changed.
const reload = () => { if (element.querySelector('[data-reload]')) location.reload(); };
const look = () => { if (!document.hidden && element.querySelector('[data-job]')) act('look', {}); };
setInterval(look, 2000);
document.addEventListener('visibilitychange', look);
watch('value', reload);
