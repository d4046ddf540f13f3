"""Words that every page shows: header, links, the key, what can go wrong."""

from collections.abc import Mapping

ENGLISH: Mapping[str, str] = {
    "nav.label": "Pages",
    "nav.compare": "Compare",
    "nav.rate": "Rate",
    "nav.campaigns": "Campaigns",
    "nav.leaderboard": "Leaderboard",
    "nav.data": "Data",
    "nav.train": "Train",
    "nav.models": "Models",
    "nav.keys": "Keys & settings",
    "nav.skip": "Skip to the content",
    "header.tagline": "Fine-tune, serve, compare",
    "header.theme": "Light or dark",
    "header.language": "Language",
    "key.title": "This server needs an API key",
    "key.info": "Kept in this browser tab until you close it; sent only to this server.",
    "key.use": "Use this key",
    "notice.starting": "The model engine is starting. This page goes on by itself when it is ready.",
    "notice.down": "The model engine isn't running. Look at the terminal of tuneloop for the reason and start it "
    "again "
    "with the command below; this page goes on by itself.",
    "notice.unreachable": "tuneloop can't be reached. Start it with the command below; the page goes on by itself.",
    "error.detail": "Details:",
    "error.unreachable": "tuneloop can't be reached. Is it running? Start it with `tuneloop up`, then send again.",
    "error.unauthorized": "The API key is missing or not valid. Enter a valid one above.",
    "error.engine_down": "The model engine isn't running. Look at the terminal of `tuneloop up` for the reason and "
    "start it again; `tuneloop doctor` tells what is missing.",
    "error.model_not_found": "No such model is served; perhaps it was removed. Refresh the models and choose another.",
    "error.too_long": "Prompt and answer don't fit into the model's context. Shorten the prompt or lower max tokens.",
    "error.too_busy": "The server is busy. Wait a moment and send again.",
    "error.too_few_models": "This needs two served models. Train or add one; the page Models tells how.",
    "error.too_few_pairs": "There aren't enough votes to train on yet. Rate more pairs with a clear winner, then start "
    "again.",
    "error.campaign_gone": "This campaign is not there any more.",
    "error.already_rated": "This comparison has your vote already; a vote is never overwritten. Send a prompt again.",
    "error.cut_off": "The connection broke off before the answer was finished. Send again.",
    "error.wrong_model": "The answer came from another model than the one chosen, so it isn't shown. Refresh the "
    "models and send again.",
    "error.empty_answers": "Both answers are empty: there is nothing to rate. Raise max tokens or change the prompt.",
    "error.not_admin": "This page wants an admin's key, and yours is none. Ask whoever runs the server; on its "
    "machine "
    "`tuneloop keys create --admin` makes one.",
    "error.last_admin": "This is the last admin's key. Make another admin's key first.",
    "error.rejected": "The server can't take this request as it is.",
    "error.server_error": "Something failed in the server. Send again; if it stays, look at the server's log.",
}

CHINESE: Mapping[str, str] = {
    "nav.label": "页面",
    "nav.compare": "对比",
    "nav.rate": "评分",
    "nav.campaigns": "评测活动",
    "nav.leaderboard": "排行榜",
    "nav.data": "数据",
    "nav.train": "训练",
    "nav.models": "模型",
    "nav.keys": "密钥与设置",
    "nav.skip": "跳到正文",
    "header.tagline": "微调、部署、对比",
    "header.theme": "浅色或深色",
    "header.language": "语言",
    "key.title": "此服务器需要 API 密钥",
    "key.info": "只保存在当前浏览器标签页中，关闭即清除；只发送给此服务器。",
    "key.use": "使用此密钥",
    "notice.starting": "模型引擎正在启动，就绪后页面会自动继续。",
    "notice.down": "模型引擎没有运行。请在 tuneloop 的终端查看原因，并用下面的命令重新启动；页面会自动继续。",
    "notice.unreachable": "无法连接 tuneloop。请用下面的命令重新启动；页面会自动继续。",
    "error.detail": "详情：",
    "error.unreachable": "无法连接 tuneloop。它还在运行吗？请用 `tuneloop up` 启动后重新发送。",
    "error.unauthorized": "缺少 API 密钥或密钥无效。请在上方输入有效的密钥。",
    "error.engine_down": "模型引擎没有运行。请在 `tuneloop up` 的终端查看原因并重新启动；"
    "`tuneloop doctor` 会指出缺少什么。",
    "error.model_not_found": "没有这个模型，可能已被移除。请刷新模型列表后另选一个。",
    "error.too_long": "提示词加回答超出了模型的上下文长度。请缩短提示词或减小最大 token 数。",
    "error.too_busy": "服务器繁忙。请稍候再发送。",
    "error.too_few_models": "需要两个可用的模型。请先训练或添加一个；“模型”页面有说明。",
    "error.too_few_pairs": "投票还不足以用于训练。请再评一些能分出胜负的回答，然后重新开始。",
    "error.campaign_gone": "这个评测活动已经不存在了。",
    "error.already_rated": "你已对这次对比投过票，投票不会被覆盖。请重新发送提示词。",
    "error.cut_off": "回答完成之前连接中断。请重新发送。",
    "error.wrong_model": "回答来自另一个模型，而不是所选的模型，因此不予显示。请刷新模型列表后重新发送。",
    "error.empty_answers": "两个回答都是空的，无法评价。请增大最大 token 数或修改提示词。",
    "error.not_admin": "此页面需要管理员密钥，而你的密钥不是。请联系服务器管理者；在服务器上运行 "
    "`tuneloop keys create --admin` 即可创建。",
    "error.last_admin": "这是最后一个管理员密钥。请先创建另一个管理员密钥。",
    "error.rejected": "服务器无法接受这个请求。",
    "error.server_error": "服务器内部出错。请重新发送；若仍然如此，请查看服务器日志。",
}
